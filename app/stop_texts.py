"""Text that ends before any of some given texts, handed on token by token as soon as it is certain.

Boundary: tokens of any kind with the text of each in; text, and the tokens that begin in it, out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class StopTexts(Generic[T]):
    """Keeps back what may be the beginning of one of `stops` (none of them empty) until it is known not to be."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._done = 0
        """Characters handed on."""
        self._text = ""
        """What is kept back."""
        self._tokens: list[tuple[int, T]] = []
        """The tokens of it, and at which character of all text each begins: after its blank."""
        self.stopped = False
        """Whether a stop text has come. Nothing may be pushed after it."""

    def push(self, token: T, text: str) -> tuple[str, list[tuple[int, T]]]:
        """Take a token and the text it adds; the text that is certain now and the tokens that begin in it.

        Each token comes with the character of all text at which it begins. Where a stop text has come, that is all
        there is before it; of several, before the one that was complete first, and then before the longest.
        """
        blanks = len(text) - len(text.lstrip(" "))
        self._tokens.append((self._done + len(self._text) + blanks, token))
        self._text += text
        found = [(place + len(stop), place) for stop in self._stops if (place := self._text.find(stop)) >= 0]
        self.stopped = bool(found)
        doubtful = max((_overlap(self._text, stop) for stop in self._stops), default=0)
        end = min(found)[1] if found else len(self._text) - doubtful
        certain, self._text = self._text[:end], self._text[end:]
        self._done += end
        tokens = [(begins, token) for begins, token in self._tokens if begins < self._done]
        self._tokens = self._tokens[len(tokens) :]
        return certain, tokens

    def finish(self) -> tuple[str, list[tuple[int, T]]]:
        """What is kept back, at the end of all text, with every token that is left."""
        return self._text, self._tokens


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
