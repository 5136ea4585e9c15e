"""How much of a run's text its vocabulary covers, in words for whoever trains.

Boundary: a run's data and its validation text in, lines of text out. A low perplexity of a text that is mostly `<unk>`
says nothing.
"""

from __future__ import annotations

from model.conventions import Convention, words_of
from training.data import Data

MOST_UNKNOWN = 0.2
"""Share of validation's tokens from which so much is unknown that the model learns little."""
LONGEST_WORDS = 12.0
"""Mean code points from which what stands between blanks is more than words, also in languages that join them."""


def coverage(data: Data) -> str:
    """How many words are known, and the share of each split's tokens that are not."""
    shares = ", ".join(f"{share:.1%} of {split}" for split, share in _unknown_shares(data).items())
    return f"a vocabulary of {len(data.vocabulary):,} words; unknown are {shares}"


def doubt(data: Data, valid: str) -> str | None:
    """What speaks against training on this, and what to do: little is known, or what stands between blanks is no word.

    `valid` is the text of the validation split.
    """
    unknown, length = _unknown_shares(data)["valid"], _mean_length(valid, data.vocabulary.convention)
    long = length > LONGEST_WORDS
    if unknown <= MOST_UNKNOWN and not long:
        return None
    found = [
        *([f"{unknown:.0%} of validation is unknown"] if unknown > MOST_UNKNOWN else []),
        *([f"words have {length:.0f} characters on average"] if long else []),
    ]
    return (
        f"warning: {' and '.join(found)}: segment text whose script puts no blanks between words (Chinese, Thai) "
        "first; of other text give more, or lower --min-count"
    )


def _unknown_shares(data: Data) -> dict[str, float]:
    """The share of `<unk>` among the tokens of each split."""
    return {split: unknown / data.tokens[split] for split, unknown in data.unknown_tokens.items()}


def _mean_length(text: str, convention: Convention) -> float:
    """Mean code points of the words that hold a letter or a digit; 0 where there are none."""
    lengths = [len(word) for word in words_of(text, convention) if any(map(str.isalnum, word))]
    return sum(lengths) / len(lengths) if lengths else 0.0
