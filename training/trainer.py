"""The training loop: epochs of truncated back-propagation, a checkpoint at each new best, exact resumption.

Boundary: a model, ids and a recipe in; a checkpoint folder out. What is shown meanwhile is the `Observer`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import RECORD, load_checkpoint, read_record, save_checkpoint
from model.config import ModelConfig
from model.errors import TrainingError
from model.files import write_json
from model.language_model import LanguageModel
from training.arithmetic import circumstances, multiplies_bfloat16, of_recurrence
from training.averaging import Average, stopped_improving
from training.data import Data, Epochs
from training.evaluate import evaluate
from training.memory import peak_bytes
from training.objective import Objective
from training.observer import Observer
from training.recipe import Optimizer, Recipe, build_optimizer, learning_rate
from training.resume import FILE as RESUME_FILE
from training.resume import Parts, Position, load_resume, save_resume
from training.run_folder import how_to_go_on, last_good, recorded_curve, remove_leftovers
from training.updates import GraphedUpdates, Updates
from training.warm_start import WarmStart
from training.world import World

VALIDATION_STREAMS = 16
"""Pieces the validation text is read in after an epoch; the final figure is of one stream."""
RESUME_SECONDS = 60.0
"""Time from which on the end of an epoch is worth a resume state: of a fast epoch it would be the longest part."""
EXPLODED = 5
"""Times the loss of knowing nothing, ln V, from which a loss has exploded."""


class Trainer:
    """One training run in the folder `out`. Of several processes, the first writes."""

    def __init__(
        self,
        config: ModelConfig,
        recipe: Recipe,
        data: Data,
        out: Path,
        *,
        preset: str,
        seed: int,
        half: bool = False,
        start: WarmStart | None = None,
        world: World = World(),  # noqa: B008 - it is frozen
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.data, self.out, self.half, self.world = recipe, data, out, half, world
        self.model = LanguageModel(config, recipe.dropout)
        if start is not None:
            self.model.load_state_dict(start.weights)
        self.bfloat16 = recipe.bfloat16 and multiplies_bfloat16(world.device)
        objective = Objective(self.model, recipe, bfloat16=self.bfloat16).to(world.device)
        self.parts = Parts(objective, build_optimizer(objective.parameters(), recipe), Average(self.model.parameters()))
        if recipe.batch_size % world.size:
            raise TrainingError(
                f"a batch of {recipe.batch_size} rows is not divisible by {world.size} processes; change its size"
            )
        if world.rank:
            torch.manual_seed(seed + world.rank)  # Masks of its own; the weights are the first process's.
        self.epochs = Epochs(data, recipe, seed, world)
        self.limit = EXPLODED * math.log(len(data.vocabulary))
        self.recorded: list[dict[str, Any]] = []
        """Epochs that the checkpoint's record tells of already, some of which are read again after a kill."""
        skipped = start.epoch if start is not None else 0
        self.position = Position(epoch=skipped, step=sum(self.epochs.updates[:skipped]))
        graphs = world.device.type == "cuda" and world.size == 1
        state = self.model.initial_state(recipe.batch_size // world.size)
        self.updates = (GraphedUpdates if graphs else Updates)(
            world.together(objective), self.parts.optimizer, recipe, state
        )
        self.identity = {
            "preset": preset,
            "model": config.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "data": data.identity,
            "vocabulary": data.vocabulary.identity,
            "seed": seed,
            "processes": world.size,
            "device": world.device.type,
            **({"half": True} if half else {}),
            **({"started_from": start.record()} if start is not None else {}),
        }

    def resume(self) -> None:
        """Go on from the stop that `out` records."""
        if (self.out / RECORD).exists() and read_record(self.out).get("finished"):
            raise TrainingError(f"{self.out} holds a finished run; use another --out folder to train again")
        self.position, own = load_resume(self.out, self.identity, self.parts)
        self.recorded = recorded_curve(self.out)
        rank = self.world.rank
        self.updates.restart(own[f"{rank}.state"].to(self.world.device))
        torch.set_rng_state(own[f"{rank}.random"])
        if self.world.device.type == "cuda":
            torch.cuda.set_rng_state(own[f"{rank}.cuda_random"], self.world.device)

    def run(self, observer: Observer, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train until the recipe's last epoch, or until `should_stop` (asked after every update).

        Returns whether the run is finished. Either way `out` holds a checkpoint, and an unfinished run can be resumed.
        Raises `TrainingError` where the loss is not finite or explodes, or `out` cannot be written; earlier files stay
        as they were.
        """
        try:
            return self._run(observer, should_stop)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"{self.out} cannot be written: {reason}; mend that, and {how_to_go_on(self.out)}"
            ) from None

    def _run(self, observer: Observer, should_stop: Callable[[], bool]) -> bool:
        self.out.mkdir(parents=True, exist_ok=True)
        if self.world.leads:
            remove_leftovers(self.out)
        if not (self.out / RESUME_FILE).exists():
            if "started_from" in self.identity:
                self.position.start_perplexity = self._validation_perplexity()
            # From here on whatever stops the run leaves something to resume, and a full disk is noticed at once.
            self._save_resume()
        if self.position.start_perplexity is not None and not (self.out / RECORD).exists():
            self._save_checkpoint()  # What the run started from, until an epoch is better.
        self._saved_at = time.monotonic()
        position, epochs = self.position, self.recipe.epochs
        observer.started(position, self.epochs.total, epochs)
        while position.epoch < epochs and not position.ended:
            stopped = self._epoch(observer, should_stop)
            if position.segment == self.epochs.updates[position.epoch]:
                observer.validated(self._validate())
            elif math.isinf(position.best[0]) and not self.recorded:
                self._save_checkpoint()
            # Clocks differ, and to save is an exchange between processes: all do as the first.
            if stopped or self.world.of_first(time.monotonic() - self._saved_at >= RESUME_SECONDS):
                self._save_resume()
            if stopped and position.epoch < epochs and not position.ended:
                return False
        self._finish()
        return True

    def _epoch(self, observer: Observer, should_stop: Callable[[], bool]) -> bool:
        """Read the rest of the epoch, or until asked to stop; whether it was asked to."""
        position = self.position
        self.model.train()
        for index, (inputs, targets) in enumerate(self.epochs.batches(position.epoch)):
            if index < position.segment:
                continue
            began = time.perf_counter()
            loss = self.world.mean(self._update(inputs, targets))
            self._check(loss)
            tokens = targets.numel() * self.world.size
            position.segment += 1
            position.step += 1
            position.loss += loss * tokens
            position.tokens += tokens
            position.epoch_seconds += time.perf_counter() - began
            observer.stepped(position, loss, tokens)
            if self.world.mean(should_stop()):
                return True
        return False

    def _update(self, inputs: Tensor, targets: Tensor) -> float:
        """One optimiser step; the mean loss before it, in nats a token."""
        recipe, position = self.recipe, self.position
        rate = learning_rate(recipe, position.step, self.epochs.total)
        if recipe.variable_bptt:
            rate *= inputs.shape[1] / recipe.bptt
        loss = self.updates.make(inputs, targets, rate)
        if recipe.optimizer is Optimizer.ASGD or position.averaging:
            position.averaged += 1
            self.parts.average.update(position.averaged)
        value: float = loss.item()
        return value

    def _check(self, loss: float) -> None:
        if loss <= self.limit:
            return
        position = self.position
        kind = f"has exploded to {loss:.1f}" if math.isfinite(loss) else f"is {loss}"
        raise TrainingError(
            f"the loss {kind} at step {position.step + 1} (epoch {position.epoch + 1}); lower the learning rate or the "
            f"clip; {last_good(self.out)}"
        )

    def _validate(self) -> dict[str, Any]:
        """End the epoch: measure validation, keep the checkpoint if it is the best, make the curve's next point.

        An epoch that was read before a kill has its point, and its checkpoint is there, or a better one.
        """
        position = self.position
        done = len(position.curve)
        with self.parts.average.in_place():
            again = done < len(self.recorded)
            entry = self.recorded[done] if again else self._measure()
            best, _ = position.best
            position.curve.append(entry)
            position.epoch += 1
            position.segment = position.tokens = 0
            position.loss = position.epoch_seconds = 0.0
            position.seconds = entry["seconds"]
            self.updates.restart(torch.zeros_like(self.updates.state))
            if not again and entry["valid_perplexity"] < best:
                self._save_checkpoint()
            elif not again and self.world.leads:
                self._renew_record()
        self._notice_a_standstill()
        return entry

    def _measure(self) -> dict[str, Any]:
        """The curve's point of the epoch that was read."""
        position, began = self.position, time.perf_counter()
        valid = self._validation_perplexity()
        return {
            "epoch": position.epoch + 1,
            "step": position.step,
            "train_perplexity": math.exp(position.loss / position.tokens),
            "valid_perplexity": valid,
            "averaged": position.averaged,
            "tokens_per_second": position.tokens / position.epoch_seconds,
            "seconds": position.seconds + position.epoch_seconds + time.perf_counter() - began,
        }

    def _validation_perplexity(self) -> float:
        valid = self.data.valid
        streams = min(VALIDATION_STREAMS, max(1, len(valid) // 64))
        found = evaluate(self.model, valid, self.data.vocabulary.eos_id, streams=streams, bfloat16=self.bfloat16)
        # What is decided by it must be decided alike, and machines differ in their last digits.
        perplexity = self.world.of_first(found.perplexity)
        if not math.log(perplexity) <= self.limit:
            raise TrainingError(
                f"validation perplexity is {perplexity:.4g} {'after' if self.position.tokens else 'before'} epoch "
                f"{self.position.epoch + 1}; lower the learning rate or the clip; {last_good(self.out)}"
            )
        return perplexity

    def _notice_a_standstill(self) -> None:
        """Begin to average the weights, or end the run, once validation stops improving."""
        position, optimizer = self.position, self.recipe.optimizer
        figures = [point["valid_perplexity"] for point in position.curve]
        if not optimizer.averages or not stopped_improving(figures, self.recipe.patience):
            return
        if optimizer is Optimizer.ASGD:
            position.ended = True
        else:
            position.averaging = True

    def _finish(self) -> None:
        """Measure the best checkpoint, as stored, on one stream of each text, and close the run."""
        if not self.world.leads:
            return
        model, vocabulary, _ = load_checkpoint(self.out)
        model.to(self.world.device)
        perplexity = {
            split: evaluate(model, ids, vocabulary.eos_id).perplexity
            for split, ids in (("valid", self.data.valid), ("test", self.data.test))
            if ids is not None
        }
        self._renew_record(perplexity=perplexity, finished=True, **of_recurrence(model, self.world.device))
        (self.out / RESUME_FILE).unlink(missing_ok=True)

    def _save_resume(self) -> None:
        self._saved_at = time.monotonic()
        own = {"state": self.updates.state, "random": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            own["cuda_random"] = torch.cuda.get_rng_state(self.world.device)
        of_processes = self.world.gather(own)
        if self.world.leads:
            save_resume(self.out, self.identity, self.position, self.parts, of_processes)

    def _save_checkpoint(self) -> None:
        if self.world.leads:
            save_checkpoint(self.out, self.model, self.data.vocabulary, self._record(), half=self.half)

    def _renew_record(self, **more: Any) -> None:
        """Write the record anew beside weights that stay, and with them what `evaluate --record` measured of them."""
        kept = {name: value for name, value in read_record(self.out).items() if name == "evaluations"}
        write_json(self.out / RECORD, self._record() | kept | more)

    def _record(self) -> dict[str, Any]:
        position = self.position
        return {
            **self.identity,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "tokens": self.data.tokens,
            "unknown_tokens": self.data.unknown_tokens,
            "curve": position.curve,
            "best_epoch": position.best[1],
            **({"start_perplexity": start} if (start := position.start_perplexity) is not None else {}),
            "seconds": position.seconds,
            "peak_bytes": peak_bytes(self.world.device),
            "finished": False,
            **circumstances(self.world.device, bfloat16=self.bfloat16),
        }
