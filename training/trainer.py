"""The training loop: epochs of truncated back-propagation, a checkpoint at each new best, exact resumption.

Boundary: a model, ids and a recipe in; a checkpoint folder out. What is shown meanwhile is the `Observer`'s.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from model.checkpoint import RECORD, load_checkpoint, read_record, save_checkpoint
from model.config import ModelConfig
from model.errors import TrainingError
from model.files import write_json
from model.language_model import LanguageModel
from model.machine import processor_name
from model.vocabulary import Ids, Vocabulary
from training.batching import as_rows, context_and_targets, segment_count, segments
from training.cross_entropy import tied_cross_entropy
from training.evaluate import evaluate
from training.recipe import Recipe, build_optimizer, learning_rate
from training.resume import FILE as RESUME_FILE
from training.resume import Position, load_resume, save_resume

VALIDATION_STREAMS = 16
"""Pieces the validation text is read in after an epoch; the final figure is of one stream."""


@dataclass(frozen=True)
class Data:
    """What a run reads: ids of each split, and where they come from. There need not be a text to report on."""

    name: str
    sha256: dict[str, str]
    vocabulary: Vocabulary
    train: Ids
    valid: Ids
    test: Ids | None

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of each split that there is."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: len(ids) for split, ids in splits.items() if ids is not None}


class Observer(Protocol):
    """Told how a run goes."""

    def started(self, position: Position, segments: int, epochs: int) -> None:
        """The run begins, or goes on, at `position`; an epoch has `segments` updates."""

    def stepped(self, position: Position, loss: float, tokens: int) -> None:
        """One update was made from `tokens` tokens; `loss` is its mean, in nats."""

    def validated(self, entry: dict[str, Any]) -> None:
        """An epoch ended; `entry` is its point on the curve."""


class Trainer:
    """One training run in the folder `out`."""

    def __init__(
        self, config: ModelConfig, recipe: Recipe, data: Data, out: Path, *, preset: str, seed: int, half: bool = False
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.data, self.out, self.half = recipe, data, out, half
        self.model = LanguageModel(config, recipe.dropout)
        self.optimizer = build_optimizer(self.model, recipe)
        self.rows = as_rows(context_and_targets(data.train, data.vocabulary.eos_id), recipe.batch_size)
        self.segments = segment_count(self.rows, recipe.bptt)
        self.position = Position()
        self.state = self.model.initial_state(recipe.batch_size)
        self.identity = {
            "preset": preset,
            "model": config.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "data": {"name": data.name, "sha256": data.sha256},
            "vocabulary": data.vocabulary.identity,
            "seed": seed,
        }

    def resume(self) -> None:
        """Go on from the stop that `out` records."""
        if (self.out / RECORD).exists() and read_record(self.out).get("finished"):
            raise TrainingError(f"{self.out} holds a finished run; use another --out folder to train again")
        self.position, self.state = load_resume(self.out, self.identity, self.model, self.optimizer)

    def run(self, observer: Observer, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train until the recipe's last epoch, or until `should_stop` (asked after every update).

        Returns whether the run is finished. Either way `out` holds a checkpoint, and an unfinished run can be resumed.
        Raises `TrainingError` where the loss is not finite or `out` cannot be written; earlier files stay as they were.
        """
        try:
            return self._run(observer, should_stop)
        except OSError as error:
            raise TrainingError(
                f"{self.out} cannot be written: {error.strerror or error}; mend that, and --resume goes on from "
                "what was saved last"
            ) from None

    def _run(self, observer: Observer, should_stop: Callable[[], bool]) -> bool:
        self.out.mkdir(parents=True, exist_ok=True)
        if not (self.out / RESUME_FILE).exists():
            # From here on whatever stops the run leaves something to resume, and a full disk is noticed at once.
            self._save_resume()
        observer.started(self.position, self.segments, self.recipe.epochs)
        while self.position.epoch < self.recipe.epochs:
            stopped = self._epoch(observer, should_stop)
            if self.position.segment == self.segments:
                observer.validated(self._validate())
            elif not self.position.curve:
                self._save_checkpoint()
            self._save_resume()
            if stopped and self.position.epoch < self.recipe.epochs:
                return False
        self._finish()
        return True

    def _epoch(self, observer: Observer, should_stop: Callable[[], bool]) -> bool:
        """Read the rest of the epoch, or until asked to stop; whether it was asked to."""
        position = self.position
        total = self.segments * self.recipe.epochs
        self.model.train()
        for index, (inputs, targets) in enumerate(segments(self.rows, self.recipe.bptt)):
            if index < position.segment:
                continue
            began = time.perf_counter()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe, position.step, total)
            loss = self._update(inputs, targets)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {position.step + 1} (epoch {position.epoch + 1}); lower the learning "
                    f"rate or the clip; the last good checkpoint, if any epoch was finished, is {self.out}"
                )
            position.segment += 1
            position.step += 1
            position.loss += loss * targets.numel()
            position.tokens += targets.numel()
            position.epoch_seconds += time.perf_counter() - began
            observer.stepped(position, loss, targets.numel())
            if should_stop():
                return True
        return False

    def _update(self, inputs: Tensor, targets: Tensor) -> float:
        """One optimiser step; the mean loss before it, in nats a token."""
        dtype = torch.bfloat16 if self.recipe.bfloat16 else torch.float32
        with torch.autocast(inputs.device.type, dtype, enabled=self.recipe.bfloat16):
            hidden, self.state = self.model(inputs, self.state.detach())
        loss = tied_cross_entropy(
            hidden.flatten(0, 1).to(dtype), self.model.embedding.weight, self.model.decoder.bias, targets.flatten()
        )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.item()

    def _validate(self) -> dict[str, Any]:
        """End the epoch: measure validation, keep the checkpoint if it is the best, make the curve's next point."""
        position = self.position
        began = time.perf_counter()
        streams = min(VALIDATION_STREAMS, max(1, len(self.data.valid) // 64))
        valid = evaluate(
            self.model,
            self.data.valid,
            self.data.vocabulary.eos_id,
            streams=streams,
            bfloat16=self.recipe.bfloat16,
        )
        if not math.isfinite(valid.perplexity):
            raise TrainingError(
                f"validation perplexity is {valid.perplexity} after epoch {position.epoch + 1}; lower the learning "
                f"rate or the clip; {self.out} holds what was saved before"
            )
        position.seconds += position.epoch_seconds + time.perf_counter() - began
        best = min((point["valid_perplexity"] for point in position.curve), default=math.inf)
        entry = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "train_perplexity": math.exp(position.loss / position.tokens),
            "valid_perplexity": valid.perplexity,
            "tokens_per_second": position.tokens / position.epoch_seconds,
            "seconds": position.seconds,
        }
        position.curve.append(entry)
        position.epoch += 1
        position.segment = position.tokens = 0
        position.loss = position.epoch_seconds = 0.0
        self.state = self.model.initial_state(self.recipe.batch_size)
        if valid.perplexity < best:
            self._save_checkpoint()
        return entry

    def _finish(self) -> None:
        """Measure the best checkpoint, as stored, on one stream of each text, and close the run."""
        model, vocabulary, _ = load_checkpoint(self.out)
        perplexity = {
            split: evaluate(model, ids, vocabulary.eos_id).perplexity
            for split, ids in (("valid", self.data.valid), ("test", self.data.test))
            if ids is not None
        }
        write_json(self.out / RECORD, self._record() | {"perplexity": perplexity, "finished": True})
        (self.out / RESUME_FILE).unlink(missing_ok=True)

    def _save_resume(self) -> None:
        save_resume(self.out, self.identity, self.position, self.model, self.optimizer, self.state)

    def _save_checkpoint(self) -> None:
        save_checkpoint(self.out, self.model, self.data.vocabulary, self._record(), half=self.half)

    def _record(self) -> dict[str, Any]:
        position = self.position
        best = min(position.curve, key=lambda point: point["valid_perplexity"], default=None)
        return {
            **self.identity,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "tokens": self.data.tokens,
            "curve": position.curve,
            "best_epoch": best["epoch"] if best else None,
            "seconds": position.seconds,
            "finished": False,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "hardware": {"processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }


def is_occupied(out: Path) -> bool:
    """Whether a folder already holds a run, finished or not."""
    return (out / RESUME_FILE).exists() or (out / RECORD).exists()
