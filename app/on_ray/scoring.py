"""The parts of a corpus, scored by all cores of a Ray cluster with Ray Data.

Boundary: parts in, one word about each out, as they are done. A worker writes its part's file itself, into a folder
that all machines reach under one path, so what goes through Ray is numbers: it may lose any of it and do it again.
Ray's workers hand each other Python objects by Ray's own serialization; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import data
from ray.exceptions import RayError

from app.corpus.part import score_part
from app.corpus.plan import Part, Plan, read_plan
from app.corpus.scorer import Scorer
from app.served_model import Source, open_source
from model.errors import EngineError, EngineMemoryError, PRUError, TextError

TRIES = 3
"""Workers that may die over one part. A machine that is lost takes a part along by chance; memory that is too small for
a part is so for every worker."""
WAITING = 2
"""Parts that a worker has at once, of which it scores one: the next begins at once, and few go down with it."""

Batch = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Told:
    """What became of one part: `error` says why it has no file, if it has none."""

    part: Part
    error: str


class PartScorer:
    """A worker: one engine on one thread, which is made once. It tells of errors that are known, and raises none."""

    def __init__(self, folder: Path, out: Path, source: Source) -> None:
        self._folder, self._out, self._source = folder, out, source

    @cached_property
    def _plan(self) -> Plan:
        return read_plan(self._out)

    @cached_property
    def _scorer(self) -> Scorer:
        served = open_source(self._source)
        engine = served.build_engine()
        if served.identity(engine) != self._plan.model:
            raise EngineError(
                f"{self._source.bundle} is another model, or runs on another engine, on one of the machines than where "
                "the run began; give all machines the same bundle, and the same engine by PRU_ENGINE"
            )
        return Scorer(engine, served.vocabulary, include_eos=self._plan.include_eos)

    def __call__(self, batch: Batch) -> Batch:
        """Score the one part whose number is in a batch; `ends` where an error is one of every part."""
        number, ends = int(batch["part"][0]), False
        try:
            error = self._try(self._plan.parts[number])
        except (PRUError, OSError) as problem:
            where = f"{problem.filename}: " if isinstance(problem, OSError) and problem.filename else ""
            error, ends = f"{where}{getattr(problem, 'strerror', None) or problem}", True
        return {"part": np.array([number]), "error": np.array([error]), "ends": np.array([ends])}

    def _try(self, part: Part) -> str:
        """Score a part, unless it is done; why it is not. A byte is kept for each try until one ends."""
        tries = self._out / f".{part.name}.tries"
        if (self._out / part.name).exists():
            tries.unlink(missing_ok=True)
            return ""
        scorer = self._scorer
        with tries.open("ab") as file:
            if file.tell() >= TRIES:
                return (
                    f"{part.where}: {TRIES} workers died over them, as they do where memory runs out; "
                    "give workers more of it, or divide long texts among several rows"
                )
            file.write(b".")
        try:
            score_part(scorer, self._folder, part, self._out, self._plan.oov_penalty)
        except TextError as error:
            return str(error)
        except (EngineMemoryError, MemoryError) as error:
            return f"{part.where}: {str(error) or 'memory is full'}; divide long texts among several rows"
        finally:
            tries.unlink(missing_ok=True)
        return ""


def score_parts(parts: Sequence[Part], folder: Path, out: Path, source: Source, cores: int) -> Iterator[Told]:
    """Score parts of the plan in `out`, whose rows are in `folder`, by a worker on each of some cores.

    Tells of each part when it is done or found to be impossible; the others go on. Raises `EngineError` where none can
    go on. A worker that dies is started anew, elsewhere where its machine is lost, and its part is scored again.
    """
    if not parts:
        return
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    numbers = data.from_items([{"part": part.number} for part in parts], override_num_blocks=len(parts))
    size = max(1, min(cores, len(parts)))
    # At least one, not all: where a machine is lost for good, its parts go to workers that are left. At most one for
    # each part, as cores allow: machines may join.
    pool = data.ActorPoolStrategy(
        min_size=1, max_size=len(parts), initial_size=size, max_tasks_in_flight_per_actor=WAITING
    )
    told = numbers.map_batches(
        PartScorer, batch_size=1, num_cpus=1, compute=pool, fn_constructor_args=(folder, out, source)
    )
    by_number = {part.number: part for part in parts}
    try:
        for row in told.iter_rows():
            if row["ends"]:
                raise EngineError(f"{row['error']}; what is finished is in {out}")
            yield Told(by_number[int(row["part"])], str(row["error"]))
    except RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().partition("\n")[0]
        raise EngineError(f"Ray stopped scoring: {reason}; run the command again to go on") from None
