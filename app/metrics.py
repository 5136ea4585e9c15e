"""What the service counts and times, for Prometheus.

Boundary: names, buckets and the numbers behind them. Each application has a registry of its own. Where several workers
serve, they write into files of the folder in `PROMETHEUS_MULTIPROC_DIR`, and whichever is asked answers for all: the
variable must be set before this module is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.settings import METRICS_FOLDER

SECONDS = (
    *(0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
"""Bounds of the times' buckets: a step of the engine takes a third of a millisecond, a long text a minute."""
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

BY_KEY = frozenset({"pru_key_requests", "pru_key_tokens", "pru_key_quota_refusals"})
"""What holders of keys did, each by its name."""


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The instruments of one model of an application. Safe between threads."""

    queue_seconds: Histogram
    queued: Histogram
    batch: Histogram
    engine_seconds: Histogram
    tokens_read: Counter
    tokens_generated: Counter
    dropped: Counter
    hit: Counter
    miss: Counter
    cache_bytes: Gauge


class Metrics:
    """The instruments of one application. Safe between threads."""

    def __init__(self) -> None:
        self._own = own = CollectorRegistry()
        self._requests = Counter("pru_requests", "Requests answered.", ["method", "route", "status"], registry=own)
        self._request_seconds = Histogram(
            "pru_request_seconds",
            "From a request's head to its answer's end.",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self.inside = Gauge(
            "pru_requests_inside",
            "Requests that were let in and are not answered yet.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self._queue_seconds = Histogram(
            "pru_queue_seconds",
            "From a reading's arrival to its first call of the engine.",
            ["model"],
            buckets=SECONDS,
            registry=own,
        )
        self._queued = Histogram(
            "pru_queued_readings",
            "Readings that waited when a call of the engine began.",
            ["model"],
            buckets=ROWS,
            registry=own,
        )
        self._batch = Histogram(
            "pru_batch_rows", "Readings advanced by a call of the engine.", ["model"], buckets=ROWS, registry=own
        )
        self._engine_seconds = Histogram(
            "pru_engine_seconds",
            "Time of a call of the engine, heads included.",
            ["model"],
            buckets=SECONDS,
            registry=own,
        )
        self._tokens_read = Counter("pru_tokens_read", "Tokens that the engine read.", ["model"], registry=own)
        self._tokens_generated = Counter("pru_tokens_generated", "Tokens that were drawn.", ["model"], registry=own)
        self._dropped = Counter(
            "pru_readings_dropped",
            "Readings given up before they were finished: nobody waited any more.",
            ["model"],
            registry=own,
        )
        self._lookups = Counter(
            "pru_prefix_cache_lookups",
            "Texts looked up, by whether a beginning was known.",
            ["model", "found"],
            registry=own,
        )
        self._cache_bytes = Gauge(
            "pru_prefix_cache_bytes",
            "Memory of remembered states.",
            ["model"],
            multiprocess_mode="livesum",
            registry=own,
        )
        self.sessions = Gauge(
            "pru_sessions",
            "Sessions in the store, counted once a minute.",
            multiprocess_mode="mostrecent",
            registry=own,
        )
        self._store_seconds = Histogram(
            "pru_session_store_seconds",
            "Time of an operation of the session store, waiting included.",
            ["operation"],
            buckets=SECONDS,
            registry=own,
        )
        self._store_failures = Counter(
            "pru_session_store_failures",
            "Operations of the session store that failed.",
            ["operation"],
            registry=own,
        )
        self._key_requests = Counter(
            "pru_key_requests", "Requests let in, by the name of their key.", ["key"], registry=own
        )
        self._key_tokens = Counter(
            "pru_key_tokens",
            "Tokens that requests asked to read or write, by the name of their key.",
            ["key"],
            registry=own,
        )
        self._key_refusals = Counter(
            "pru_key_quota_refusals", "Requests refused for a quota, by the name of their key.", ["key"], registry=own
        )
        self.starts = Counter("pru_starts", "Times that a serving process became ready.", registry=own)
        self.models_broken = Gauge(
            "pru_models_broken",
            "1 while the file of models, or a bundle that it names, cannot be served as it is.",
            multiprocess_mode="livemax",
            registry=own,
        )
        self._info = Gauge(
            "pru_model_info",
            "1, for each model that is served by its name; 0 for one that was.",
            ["name", "sha256", "engine", "precision"],
            multiprocess_mode="max",
            registry=own,
        )
        self._counter_of = lru_cache(1024)(self._requests.labels)
        self._timer_of = lru_cache(256)(self._request_seconds.labels)
        self._key_requests_of = lru_cache(1024)(self._key_requests.labels)
        self._key_tokens_of = lru_cache(1024)(self._key_tokens.labels)
        self._store_timer_of = lru_cache(16)(self._store_seconds.labels)

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request. A route is a template, None where none matched: neither may grow with what clients send."""
        self._counter_of(method, route or "none", str(status)).inc()
        self._timer_of(route or "none").observe(seconds)

    def asked(self, key: str) -> None:
        """Count a request of a key that holds, by its name: there are as many as keys."""
        self._key_requests_of(key).inc()

    def charged(self, key: str, tokens: int) -> None:
        """Count tokens that are charged to a key."""
        self._key_tokens_of(key).inc(tokens)

    def over_quota(self, key: str) -> None:
        """Count a request that a key's quota refuses."""
        self._key_refusals.labels(key).inc()

    def stored(self, operation: str, seconds: float, *, failed: bool) -> None:
        """Observe an operation of the session store."""
        self._store_timer_of(operation).observe(seconds)
        if failed:
            self._store_failures.labels(operation).inc()

    def of_model(self, name: str) -> ModelMetrics:
        """The instruments of one model. Names are the operator's, never a client's."""
        return ModelMetrics(
            queue_seconds=self._queue_seconds.labels(name),
            queued=self._queued.labels(name),
            batch=self._batch.labels(name),
            engine_seconds=self._engine_seconds.labels(name),
            tokens_read=self._tokens_read.labels(name),
            tokens_generated=self._tokens_generated.labels(name),
            dropped=self._dropped.labels(name),
            hit=self._lookups.labels(name, "true"),
            miss=self._lookups.labels(name, "false"),
            cache_bytes=self._cache_bytes.labels(name),
        )

    def waited(self) -> tuple[float, float]:
        """Seconds that readings have waited for the engine, of all models together, and how many readings."""
        found = {"sum": 0.0, "count": 0.0}
        for family in self._queue_seconds.collect():
            for sample in family.samples:
                what = sample.name.rpartition("_")[2]
                if what in found:
                    found[what] += sample.value
        return found["sum"], found["count"]

    def serving(self, name: str, sha256: str, engine: str, precision: str, *, still: bool = True) -> None:
        """Say which model is served, or is no more."""
        self._info.labels(name, sha256, engine, precision).set(still)

    def exposition(self, accept: str, *, by_key: bool = False) -> tuple[bytes, str]:
        """All numbers, and their content type, in the format that a scraper's `Accept` prefers.

        What holders of keys did is one sum, unless it is to be told `by_key`.
        """
        encode, content_type = choose_encoder(accept)
        registry = self._own
        if METRICS_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        if not by_key:
            every, registry = registry, CollectorRegistry()
            registry.register(_Nameless(every))
        write: Callable[[CollectorRegistry], bytes] = encode
        return write(registry), content_type


class _Nameless(Collector):
    """The numbers of a registry without the names of keys."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            yield _summed(family) if family.name in BY_KEY else family


def _summed(family: Metric) -> Metric:
    """A counter's labels together; since when each counts goes with them."""
    whole = Metric(family.name, family.documentation, family.type)
    total = f"{family.name}_total"
    if found := [sample.value for sample in family.samples if sample.name == total]:
        whole.add_sample(total, {}, sum(found))
    return whole


def write_at(place: int) -> None:
    """Count on where the worker that had this place before left off, in its files; `Metrics` are made after this.

    Files by the process's id, which is the library's default, would become more with each worker that ends.
    """
    if METRICS_FOLDER in os.environ:
        values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def forget(place: int) -> None:
    """Take what a worker that ended holds at the moment out of the sums; what it has counted stays in them."""
    if METRICS_FOLDER in os.environ:
        mark_process_dead(place)  # type: ignore[no-untyped-call]
