"""Who is told how a training run goes.

Boundary: a protocol. What is shown, and where, is `training.progress`.
"""

from __future__ import annotations

from typing import Any, Protocol

from training.resume import Position


class Observer(Protocol):
    """Told how a run goes."""

    def started(self, position: Position, updates: int, epochs: int) -> None:
        """The run begins, or goes on, at `position`; all epochs together have so many updates."""

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """One update was made from `tokens` tokens; `loss` is its mean, in nats."""

    def validated(self, entry: dict[str, Any]) -> None:
        """An epoch ended; `entry` is its point on the curve."""
