"""What a billion texts and a million sessions need, from costs that were measured and prices that are assumed.

Boundary: numbers in, numbers out. `python -m benchmarks.many_machines` measures the costs, `docs.records` shows the
plans, and whoever pays other prices changes them here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

HOUR, DAY = 3600, 86_400
GIB = 1 << 30


@dataclass(frozen=True)
class Assumptions:
    """What is not measured."""

    parts: int = 10_000
    """Into which a corpus is cut, at most: `app.corpus.plan.MOST_PARTS`."""
    cores: int = 16
    """Of one machine."""
    bytes_per_core: int = 4 * GIB
    core_hour: float = 0.04
    """Dollars for a core and its memory, for an hour, of a machine that is rented by the hour."""
    memory_hour: float = 0.01
    """Dollars for a GiB of the memory of a Redis, for an hour."""
    stored_month: float = 0.02
    """Dollars for a GB of files, for a month."""
    word_seconds: float = 10.0
    """Between two words of one session, on average: some of those who have one open type, most read."""
    full: float = 0.5
    """Share of a machine's work that is planned with, where somebody waits for the answer."""


@dataclass(frozen=True)
class CorpusPlan:
    """What scoring so many texts within a day takes."""

    texts: int
    tokens: float
    core_hours: float
    machines: int
    part_texts: float
    part_seconds: float
    """Of a core."""
    worker_bytes: float
    """Of all workers of a machine."""
    written_bytes: float
    planning_hours: float
    dollars: float
    dollars_a_month: float
    """For what was written."""


@dataclass(frozen=True)
class SessionsPlan:
    """What so many sessions at once take."""

    sessions: int
    appends_per_second: float
    machines: int
    machines_without_ray: int
    replica_bytes: float
    """Of all replicas of a machine."""
    redis_bytes: float
    redis_cores: float
    cells: int
    """Services that share nothing, each with a Redis of its own."""
    sessions_of_a_redis: float
    dollars_an_hour: float
    dollars_an_hour_without_ray: float


def for_corpus(costs: dict[str, Any], texts: int, seconds: float, assumed: Assumptions) -> CorpusPlan:
    """The plan for a corpus that is to be scored within so many seconds."""
    tokens = texts * costs["tokens_per_text"]
    core_seconds = tokens / costs["tokens_per_core_second"]
    written = texts * costs["written_bytes_per_text"]
    return CorpusPlan(
        texts=texts,
        tokens=tokens,
        core_hours=core_seconds / HOUR,
        machines=math.ceil(core_seconds / seconds / assumed.cores),
        part_texts=texts / assumed.parts,
        part_seconds=core_seconds / assumed.parts,
        worker_bytes=assumed.cores * costs["worker_bytes"],
        written_bytes=written,
        planning_hours=texts / costs["planned_texts_per_second"] / HOUR,
        dollars=core_seconds / HOUR * assumed.core_hour,
        dollars_a_month=written / 1e9 * assumed.stored_month,
    )


def for_sessions(costs: dict[str, Any], sessions: int, assumed: Assumptions) -> SessionsPlan:
    """The plan for sessions to which words are appended all the time."""
    appends = sessions / assumed.word_seconds

    def machines(rate: float) -> int:
        return math.ceil(appends / (rate * assumed.full) / assumed.cores)

    with_ray = machines(costs["appends_per_core_second"])
    without = machines(costs["appends_per_core_second_without_ray"])
    redis_cores = appends * costs["redis_seconds_per_append"]
    redis_bytes = sessions * costs["redis_bytes_per_session"]
    cells = math.ceil(redis_cores / assumed.full)
    store = redis_bytes / GIB / assumed.full * assumed.memory_hour + cells * assumed.core_hour
    return SessionsPlan(
        sessions=sessions,
        appends_per_second=appends,
        machines=with_ray,
        machines_without_ray=without,
        replica_bytes=assumed.cores * costs["replica_bytes"],
        redis_bytes=redis_bytes,
        redis_cores=redis_cores,
        cells=cells,
        sessions_of_a_redis=sessions / redis_cores,
        dollars_an_hour=with_ray * assumed.cores * assumed.core_hour + store,
        dollars_an_hour_without_ray=without * assumed.cores * assumed.core_hour + store,
    )
