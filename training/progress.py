"""What a person sees of a training run: a progress bar, a line for every epoch, and TensorBoard's curves.

Boundary: observers (`training.observer.Observer`) of a run. They decide nothing about it.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

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
    """Write loss and speed of updates, and the perplexities of epochs, to `tensorboard` in the run's folder.

    A run outlives its logs: where they cannot be written, that is said once, and nothing more is written.
    """

    EVERY = 10
    """Updates from one point to the next."""

    def __init__(self, out: Path, console: Console) -> None:
        self._folder = out / "tensorboard"
        self._console = console
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # The name by which TensorBoard knows a file of events; those of a run that goes on are read in their order.
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
            self._file = (self._folder / name).open("wb")
        except OSError as error:
            self._give_up(error)
        self._write(file_version="brain.Event:2")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, **event: Any) -> None:
        """Write an event at once: torch's own writer has a thread, which ends with a traceback where a disk is full."""
        if self._file is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - few runs need what they load
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

        try:
            writer = RecordWriter(self._file)
            writer.write(Event(wall_time=time.time(), **event).SerializeToString())
            writer.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.close()
            self._file = None
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        reason = error.strerror or error
        self._console.print(
            f"{self._folder} cannot be written: {reason}; training goes on without these logs. Mend that, and they go "
            "on where the run is stopped and resumed",
            markup=False,
        )

    def _add(self, step: int, points: dict[str, float]) -> None:
        values = [{"tag": name, "simple_value": value} for name, value in points.items()]
        self._write(step=step, summary={"value": values})

    def started(self, position: Position, updates: int, epochs: int) -> None:
        """Nothing is known yet."""

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """Add a point to the curves of updates."""
        if position.step % self.EVERY == 0:
            speed = position.tokens / position.epoch_seconds
            self._add(position.step, {"update/loss": loss, "update/tokens_per_second": speed})

    def validated(self, entry: dict[str, Any]) -> None:
        """Add a point to the curves of epochs."""
        names = ("train_perplexity", "valid_perplexity")
        self._add(entry["epoch"], {f"epoch/{name}": entry[name] for name in names})


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
