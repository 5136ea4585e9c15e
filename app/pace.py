"""How much work a call of the engine takes: rows and steps, learnt from how long calls last.

Boundary: numbers in, numbers out. What waits and what is run is `app.scheduler`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

WIDE = 32
"""Rows from which a batch gains more by more steps than by more rows."""
MOST_ROWS = 256


class Pace:
    """How many rows fit into a call of each length that is to take `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rows: dict[int, float] = {}

    def begin(self, length: int, seconds: float) -> None:
        """Take a length for what one row of it took, or leave it out if that is too long: none or one always goes."""
        if seconds <= self.seconds or length <= 1:
            self.rows[length] = max(1.0, self.seconds / seconds)

    def length(self, left: Sequence[int]) -> int:
        """Steps of the next call, given what is left of each reading that waits, the oldest first.

        It is the longest that the oldest can go and that leaves room for all like it.
        """
        if not left[0]:
            return 0
        lengths = [length for length in sorted(self.rows, reverse=True) if 0 < length <= left[0]]
        for length in lengths:
            alike = sum(steps >= length for steps in left)
            if self.rows[length] >= min(alike, WIDE):
                return length
        return lengths[-1]

    def learn(self, length: int, rows: int, seconds: float) -> None:
        """Let fewer rows into the next call of a length where one took too long, a few more where one was full."""
        if seconds > self.seconds:
            self.rows[length] = max(1.0, rows * max(0.7, self.seconds / seconds))
        elif rows >= int(self.rows[length]):
            self.rows[length] = min(MOST_ROWS, self.rows[length] * 1.1)

    def retreat(self, length: int, rows: int) -> None:
        """Let half as many rows into the next call of a length where there was no memory for so many."""
        self.rows[length] = max(1.0, rows / 2)
