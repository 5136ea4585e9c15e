"""How much of a run's text its vocabulary covers, in words for whoever trains.

Boundary: a run's data in, a line of text out. A low perplexity of a text that is mostly `<unk>` says nothing.
"""

from __future__ import annotations

from training.data import Data


def coverage(data: Data) -> str:
    """How many words are known, and the share of each split's tokens that are not."""
    shares = ", ".join(f"{share:.1%} of {split}" for split, share in unknown_shares(data).items())
    return f"a vocabulary of {len(data.vocabulary):,} words; unknown are {shares}"


def unknown_shares(data: Data) -> dict[str, float]:
    """The share of `<unk>` among the tokens of each split."""
    return {split: unknown / data.tokens[split] for split, unknown in data.unknown_tokens.items()}
