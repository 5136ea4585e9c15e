"""Replicas of Ray Serve: two against one on the same cores, one against `pru serve`, and what a session costs in Redis.

Boundary: one cluster of this machine that is connected, with Redis and the client on the same cores. The service is
deployed as `deploy/ray/serve.yaml` does, with a number of replicas that stays.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.asking import CLIENTS, SECONDS, appends, create, predictions, words
from benchmarks.harness import Row, shown
from benchmarks.load import StreamClient
from benchmarks.processes import named, peak_bytes
from benchmarks.redis_server import RedisServer
from benchmarks.server import serving

REPLICA = "ray::ServeReplica"
SESSIONS = 2000


@dataclass(frozen=True)
class ServingCosts:
    """What serving takes, as measured."""

    predictions_per_core_second: float
    appends_per_core_second: float
    """Both with two replicas of a core each, which they share with Serve's proxy, Redis and the client."""
    appends_per_core_second_without_ray: float
    """The same of `pru serve`, which shares its cores with Redis and the client."""
    replica_bytes: int
    redis_bytes_per_session: float
    redis_seconds_per_append: float
    """Of the one core that Redis uses."""


@contextmanager
def replicas(count: int, cores: int, store: str, bundle: Path) -> Iterator[int]:
    """Port of a service of some replicas on some cores, ready."""
    serve: Any = import_module("ray.serve")

    from app.on_ray.serving import Replica  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    variables = {
        "PRU_BUNDLE": str(bundle),
        "PRU_SESSION_STORE": store,
        "PRU_ALLOW_ANONYMOUS": "true",
        "PRU_THREADS": str(cores // count),
        "PRU_LOG_LEVEL": "warning",
    }
    actor: dict[str, Any] = {"num_cpus": cores / count / 2, "runtime_env": {"env_vars": variables}}
    deployment: Any = serve.deployment(
        name="PRU", num_replicas=count, ray_actor_options=actor, max_ongoing_requests=1000
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    serve.run(deployment(serve.ingress()(Replica)).bind(), name="pru")
    try:
        yield port
    finally:
        serve.shutdown()


def rows(folder: Path, bundle: Path, cores: int, redis: RedisServer, rounds: int) -> tuple[list[Row], ServingCosts]:
    """The comparisons, medians of some rounds, and what requests and sessions cost.

    In each round every alternative is started anew and measured, one after another, so that what else the machine does
    meets all of them.
    """
    store = f"{redis.url}?db=0"
    alone, one, two = _Rates(), _Rates(), _Rates()
    for number in range(rounds):
        with serving(bundle, cores, folder / f"alone-{number}", session_store=store) as server:
            alone.measure(server.port)
        with replicas(1, cores, store, bundle) as port:
            one.measure(port)
        with replicas(2, cores, store, bundle) as port:
            two.measure(port)
            if number < rounds - 1:
                continue
            memory = max(peak_bytes(process) for process in named(REPLICA))
            before = _used(redis)
            load = uvloop.run(appends(port, CLIENTS, SECONDS))
            work = (_used(redis) - before) / (load.rate * SECONDS)
            empty = _memory(redis)
            uvloop.run(_sessions(port))
            each = (_memory(redis) - empty) / SESSIONS
    asked = f"predict after ten unseen words, {CLIENTS} clients, requests a second: "
    appended = f"append of one word, {CLIENTS} clients, Redis, requests a second: "
    found = [
        _compare(f"{what}{label}", kind, first, second)
        for kind, what in (("predict", asked), ("append", appended))
        for label, first, second in (
            (f"two replicas of a thread / one of {cores} threads, on the same cores", two, one),
            ("one replica / `pru serve`", one, alone),
        )
    ]
    return found, ServingCosts(
        predictions_per_core_second=two["predict"] / cores,
        appends_per_core_second=two["append"] / cores,
        appends_per_core_second_without_ray=alone["append"] / cores,
        replica_bytes=memory,
        redis_bytes_per_session=each,
        redis_seconds_per_append=work,
    )


class _Rates:
    """Requests a second of one alternative, of each round."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {"predict": [], "append": []}

    def measure(self, port: int) -> None:
        """Load a service that has just begun, twice: the first time warms it up."""
        for is_warm in (False, True):
            loads = {
                "predict": uvloop.run(predictions(port, CLIENTS, SECONDS)),
                "append": uvloop.run(appends(port, CLIENTS, SECONDS)),
            }
            if is_warm:
                for kind, load in loads.items():
                    self._found[kind].append(load.rate)

    def __getitem__(self, kind: str) -> float:
        return statistics.median(self._found[kind])


def _compare(name: str, kind: str, first: _Rates, second: _Rates) -> Row:
    return shown(name, f"{first[kind]:,.0f}/s, {second[kind]:,.0f}/s", first[kind] / second[kind])


async def _sessions(port: int) -> None:
    client = await StreamClient.connect(port)
    for _ in range(SESSIONS):
        await create(client, words(20))
    client.close()


def _memory(redis: RedisServer) -> int:
    found: Any = redis.client.info("memory")
    return int(found["used_memory"])


def _used(redis: RedisServer) -> float:
    """Seconds of a core that Redis has used."""
    found: Any = redis.client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])
