"""What a person sees of a training run: a progress bar while it runs, and a line for every epoch.

Boundary: an `Observer` that writes to a terminal. Decides nothing about the run.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.resume import Position

SMOOTHING = 0.02
"""Weight of the newest update in the running loss."""


class TerminalObserver:
    """Show epoch, loss, perplexity, tokens a second and time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.loss = math.nan
        # Fits in a terminal of 80 columns.
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=10),
            TextColumn("loss {task.fields[loss]:.3f} perplexity {task.fields[perplexity]:.1f}"),
            TextColumn("{task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            refresh_per_second=2,
            speed_estimate_period=120,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def started(self, position: Position, segments: int, epochs: int) -> None:
        """Show the bar, filled up to where the run goes on."""
        self.epochs = epochs
        self.task = self.progress.add_task(
            "train",
            total=segments * epochs,
            completed=position.step,
            epoch=f"{position.epoch + 1}/{epochs}",
            loss=math.nan,
            perplexity=math.nan,
            speed=0.0,
        )

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """Move the bar."""
        self.loss = loss if math.isnan(self.loss) else self.loss + SMOOTHING * (loss - self.loss)
        self.progress.update(
            self.task,
            completed=position.step,
            epoch=f"{position.epoch + 1}/{self.epochs}",
            loss=self.loss,
            perplexity=math.exp(min(self.loss, 700.0)),
            speed=position.tokens / position.epoch_seconds,
        )

    def validated(self, entry: dict[str, Any]) -> None:
        """Write the epoch's line."""
        self.console.print(
            f"epoch {entry['epoch']}/{self.epochs}: training perplexity {entry['train_perplexity']:.2f}, "
            f"validation {entry['valid_perplexity']:.2f} ({entry['seconds'] / 60:.1f} minutes)"
        )
