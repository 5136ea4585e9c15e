"""What a person sees of a training run: a progress bar, a line for every epoch, and TensorBoard's curves.

Boundary: observers (`training.observer.Observer`) of a run. They decide nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.observer import Observer
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

    def started(self, position: Position, updates: int, epochs: int) -> None:
        """Show the bar, filled up to where the run goes on."""
        self.epochs = epochs
        self.task = self.progress.add_task(
            "train",
            total=updates,
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


class TensorBoardObserver:
    """Write loss and speed of updates, and the perplexities of epochs, to `tensorboard` in the run's folder."""

    EVERY = 10
    """Updates from one point to the next."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "tensorboard"

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes seconds to load

        self._writer = SummaryWriter(str(self._folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def started(self, position: Position, updates: int, epochs: int) -> None:
        """Nothing is known yet."""

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """Add a point to the curves of updates."""
        if position.step % self.EVERY == 0:
            self._writer.add_scalar("update/loss", loss, position.step)
            self._writer.add_scalar("update/tokens_per_second", position.tokens / position.epoch_seconds, position.step)

    def validated(self, entry: dict[str, Any]) -> None:
        """Add a point to the curves of epochs."""
        for name in ("train_perplexity", "valid_perplexity"):
            self._writer.add_scalar(f"epoch/{name}", entry[name], entry["epoch"])
        self._writer.flush()


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def started(self, position: Position, updates: int, epochs: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.started(position, updates, epochs)

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.stepped(position, loss, tokens)

    def validated(self, entry: dict[str, Any]) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.validated(entry)
