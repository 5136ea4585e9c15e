"""A corpus scored by Ray against the same texts given to the engine, on the same cores.

Boundary: one cluster of this machine, started before anything is timed. That workers start is part of what is timed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.corpus.plan import Plan, begin, make_plan
from app.corpus.scorer import ROWS
from app.served_model import ServedModel, Source, open_source
from benchmarks.harness import Row, at_least, at_most
from benchmarks.processes import named, peak_bytes

WORKER = "ray::MapWorker"
SHORTEST, LONGEST = 5, 43
"""Words of a text: with its end 25 tokens on average, as a sentence of WikiText-2 has."""


@dataclass(frozen=True)
class ScoringCosts:
    """What scoring takes, as measured."""

    tokens_per_text: float
    tokens_per_core_second: float
    worker_bytes: int
    written_bytes_per_text: float
    planned_texts_per_second: float
    """Read, counted and summed on one core before anything is scored."""


class Corpus:
    """So many texts of frequent words, as a file and as ids."""

    def __init__(self, folder: Path, bundle: Path, count: int) -> None:
        self.folder = folder
        self.source = Source(None, bundle, "auto", "auto", 1)
        self.served: ServedModel = open_source(self.source)
        vocabulary = self.served.vocabulary
        generator = random.Random(3)
        known = [word for word in vocabulary.words[2:3000] if word.isalpha() and word.isascii()]
        texts = [" ".join(generator.choices(known, k=generator.randint(SHORTEST, LONGEST))) for _ in range(count)]
        with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        ids = [np.append(vocabulary.tokenise(text).ids, np.int32(vocabulary.eos_id)) for text in texts]
        self.ids = sorted(ids, key=len)
        self.tokens = sum(map(len, ids))
        identity = self.served.identity(self.served.build_engine())
        began = time.perf_counter()
        self.plan: Plan = make_plan(folder, ["corpus.jsonl"], identity, include_eos=True)
        self.planning_seconds = time.perf_counter() - began


def engine_seconds(corpus: Corpus, cores: int) -> float:
    """Seconds in which the engine on all cores scores the ids, those of one length together, and does nothing else."""
    from app.engines import load_engine  # noqa: PLC0415 - loads the engine's library
    from model.bundle import open_bundle  # noqa: PLC0415

    engine = load_engine(open_bundle(corpus.source.bundle), threads=cores)
    began = time.perf_counter()
    for start in range(0, len(corpus.ids), ROWS):
        batch = corpus.ids[start : start + ROWS]
        lengths = np.array([len(one) for one in batch], np.int32)
        ids = np.zeros((len(batch), int(lengths.max())), np.int32)
        for row, one in enumerate(batch):
            ids[row, : len(one)] = one
        hidden, _ = engine.advance(ids, lengths, np.zeros((len(batch), engine.state_size), np.float32))
        engine.score(hidden[np.arange(ids.shape[1]) < lengths[:, None]], np.concatenate(batch))
    return time.perf_counter() - began


def ray_seconds(corpus: Corpus, out: Path, cores: int) -> tuple[float, int]:
    """Seconds in which Ray scores the file into a new folder, and the largest memory of a worker."""
    from app.on_ray.scoring import score_parts  # noqa: PLC0415 - loads Ray

    began = time.perf_counter()
    missing = begin(out, corpus.plan)
    memory = 0
    for told in score_parts(missing, corpus.folder, out, corpus.source, cores):
        if told.error:
            raise RuntimeError(told.error)
        for worker in named(WORKER):
            with suppress(OSError):
                memory = max(memory, peak_bytes(worker))
    return time.perf_counter() - began, memory


def kill_one(out: Path, parts: int) -> threading.Thread:
    """Begin to kill a worker once so many parts are in a folder."""

    def kill() -> None:
        while len(list(out.glob("part-*"))) < parts:
            time.sleep(0.01)
        os.kill(named(WORKER)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def rows(folder: Path, bundle: Path, cores: int, texts: int, rounds: int) -> tuple[list[Row], ScoringCosts]:
    """The comparisons on a cluster that is connected, medians of some rounds, and what a text costs."""
    corpus = Corpus(folder, bundle, texts)
    alone, on_ray, memory = [], [], 0
    for number in range(rounds):
        alone.append(engine_seconds(corpus, cores))
        seconds, taken = ray_seconds(corpus, folder / f"out-{number}", cores)
        on_ray.append(seconds)
        memory = max(memory, taken)
    killing = kill_one(folder / "out-killed", len(corpus.plan.parts) // 2)
    killed, _ = ray_seconds(corpus, folder / "out-killed", cores)
    killing.join()
    names = [part.name for part in corpus.plan.parts]
    pairs = [((folder / "out-0" / name).read_bytes(), (folder / "out-killed" / name).read_bytes()) for name in names]
    engine, ray = (corpus.tokens / statistics.median(seconds) for seconds in (alone, on_ray))
    found = [
        at_least(
            f"{texts:,} texts of JSON Lines to Parquet on {cores} cores: Ray, its workers' start included / the engine",
            f"{ray:,.0f} tokens/s, {engine:,.0f} tokens/s",
            ray / engine,
            0.8,
        ),
        at_most(
            "the same with a worker killed in the middle: parts whose bytes are others",
            f"of {len(names)} parts, {killed:.0f} s in place of {statistics.median(on_ray):.0f} s",
            sum(first != second for first, second in pairs),
            0,
            "",
        ),
    ]
    written = sum((folder / "out-0" / name).stat().st_size for name in names)
    return found, ScoringCosts(
        tokens_per_text=corpus.tokens / texts,
        tokens_per_core_second=ray / cores,
        worker_bytes=memory,
        written_bytes_per_text=written / texts,
        planned_texts_per_second=texts / corpus.planning_seconds,
    )
