"""The word being typed, read as far as it goes: what is certain of it, and the part of a token that is left.

Boundary: part of one typed word in, ids and strings out. Which tokens are likely to end it is for whoever asks a model.

"well-kn" is `well @-@` and the beginning of a token, "kn". "don'" is `don` and the beginning of "'t"; so may "don"
be. Where such a beginning ends is what the vocabulary's convention says, by how it cuts a word that goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.conventions import Convention
from model.conventions.base import PLAIN_MARKS
from model.vocabulary import Ids, Vocabulary

MOST_TOKENS = 16
"""Tokens of a word's beginning beyond which it is not completed."""
_LETTERS, _DIGIT = "qxzj", "0"
"""How a word may go on that no vocabulary has."""


@dataclass(frozen=True)
class Beginning:
    """Tokens at a word's beginning, how they are written, and what is typed of the token after them."""

    ids: tuple[int, ...]
    written: str
    rest: str


class Beginnings:
    """Reads words of one vocabulary that are not typed to their end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def of(self, prefix: str) -> list[Beginning]:
        """How `prefix` may be one token or more and a part, or nothing yet, of another that is written behind them."""
        found = {beginning.ids: beginning for beginning in (*self._before_clitics(prefix), *self._cut(prefix))}
        return [beginning for beginning in found.values() if len(beginning.ids) <= MOST_TOKENS]

    @cached_property
    def clitics(self) -> Ids:
        """Ids, ascending, of what is written behind a word without a blank: "'s", "n't"."""
        words = self._vocabulary.words if self._vocabulary.convention is not Convention.PLAIN else ()
        clitics = [index for index, word in enumerate(words) if word == "n't" or (word[0] == "'" and len(word) > 1)]
        return np.array(clitics, np.int32)

    def is_read_as(self, word: str, ids: tuple[int, ...]) -> bool:
        """Whether a typed word is these tokens."""
        return tuple(self._vocabulary.tokenise(word).ids.tolist()) == ids

    def _cut(self, prefix: str) -> list[Beginning]:
        """All tokens but the last, which goes on."""
        last = next((character for character in reversed(prefix) if character.isalnum()), "")
        tokens = self._vocabulary.tokenise(prefix + (_DIGIT if last.isdecimal() else _LETTERS), most=MOST_TOKENS)
        start = int(tokens.starts[-1]) if len(tokens) else 0
        if not 0 < start <= len(prefix):
            return []
        return [Beginning(tuple(tokens.ids[:-1].tolist()), prefix[:start], prefix[start:])]

    def _before_clitics(self, prefix: str) -> list[Beginning]:
        """A word, in any case if it is in lower case, and the beginning of a clitic."""
        if not len(self.clitics):
            return []
        plain = prefix.translate(PLAIN_MARKS)
        mark = plain.rfind("'")
        cuts = [mark] if mark > 0 else []
        if self._vocabulary.convention is Convention.PTB:
            cuts += [cut for cut in range(max(1, len(plain) - 2), len(plain)) if "n't".startswith(plain[cut:].lower())]
        return [
            Beginning((token_id,), self._vocabulary.surface(token_id), prefix[cut:])
            for cut in cuts
            for token_id in self._vocabulary.completions(prefix[:cut]).tolist()
            if len(self._vocabulary.surface(token_id)) == cut and not self._vocabulary.is_special(token_id)
        ]


def as_typed(word: str, prefix: str) -> str:
    """A word with the quotes and hyphens of its beginning as they were typed: "don’t" for "don’"."""
    begun = [
        typed if typed != own and typed.translate(PLAIN_MARKS) == own else own
        for own, typed in zip(word, prefix, strict=False)
    ]
    return "".join(begun) + word[len(begun) :]
