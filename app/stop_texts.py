"""Text that ends before any of some given texts, handed on token by token as soon as it is certain.

Boundary: tokens of any kind with the text of each in; text, and the tokens that begin in it, out; or whole tokens.
"""

from __future__ import annotations

from collections import deque
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


class WholeTokens(Generic[T]):
    """The same for who cannot part a token: of one in which a stop text begins, nothing is handed on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._text = StopTexts[T](stops)
        self._certain = self._end = 0
        """Characters that are certain, and that were taken."""
        self._tokens: deque[tuple[int, T, str]] = deque()
        """The tokens that are kept back, each with where it ends and its text."""

    @property
    def stopped(self) -> bool:
        """Whether a stop text has come. Nothing may be pushed after it."""
        return self._text.stopped

    def push(self, token: T, text: str) -> list[tuple[T, str]]:
        """Take a token and the text it adds; the tokens whose whole text is certain now, with that."""
        self._end += len(text)
        self._tokens.append((self._end, token, text))
        certain, _ = self._text.push(token, text)
        self._certain += len(certain)
        return self._take(self._certain)

    def finish(self) -> list[tuple[T, str]]:
        """The tokens that are kept back, at the end of all text; none where a stop text has come."""
        return [] if self.stopped else self._take(self._end)

    def _take(self, certain: int) -> list[tuple[T, str]]:
        taken = []
        while self._tokens and self._tokens[0][0] <= certain:
            _, token, text = self._tokens.popleft()
            taken.append((token, text))
        return taken


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
