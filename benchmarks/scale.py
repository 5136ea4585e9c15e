"""Sessions in Redis against sessions in SQLite, and two replicas behind the proxy against one.

Boundary: comparisons of whole servers, on one machine whose cores they share with Redis, the proxy and the clients.
"""

from __future__ import annotations

import shutil
import statistics
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.asking import CLIENTS, SECONDS, appends
from benchmarks.harness import Row, shown
from benchmarks.load import Load
from benchmarks.proxy import find_haproxy, proxy
from benchmarks.redis_server import DURABLE, running_redis
from benchmarks.server import serving

NEEDED = {
    "redis-server": "sessions in Redis against sessions in SQLite, and two replicas against one",
    "haproxy": "two replicas behind the proxy against one",
}
"""What each program is needed for."""


def scale_rows(bundle: Path, folder: Path, rounds: int) -> tuple[list[Row], list[str]]:
    """The comparisons, as far as the machine has Redis and HAProxy, and why others are left out."""
    redis, haproxy = shutil.which("redis-server"), find_haproxy()
    if redis is None:
        return [], [_left_out("redis-server")]
    with ExitStack() as running:
        store = running.enter_context(running_redis(redis, folder, *DURABLE)).url
        in_sqlite = running.enter_context(serving(bundle, 1, folder / "sqlite"))
        in_redis = [
            running.enter_context(serving(bundle, 1, folder / name, session_store=store)) for name in ("one", "two")
        ]
        found = [_stores(in_sqlite.port, in_redis[0].port, rounds)]
        if haproxy is None:
            return found, [_left_out("haproxy")]
        ports = [server.port for server in in_redis]
        (folder / "before one").mkdir()
        (folder / "before two").mkdir()
        before_one = running.enter_context(proxy(haproxy, ports[:1], folder / "before one"))
        before_two = running.enter_context(proxy(haproxy, ports, folder / "before two"))
        return [*found, _replicas(before_one, before_two, rounds)], []


def _left_out(program: str) -> str:
    return f"left out, since {program} is not installed: {NEEDED[program]}"


def _stores(in_sqlite: int, in_redis: int, rounds: int) -> Row:
    found: dict[int, list[Load]] = {in_sqlite: [], in_redis: []}
    for _ in range(rounds):
        for port, loads in found.items():
            loads.append(uvloop.run(appends(port, 1, SECONDS)))
    sqlite, redis = (statistics.median(load.quantile(0.5) for load in loads) for loads in found.values())
    return shown(
        "append of one word by one client: sessions in Redis (fsync at each) / in SQLite",
        f"{redis * 1e3:.2f} ms, {sqlite * 1e3:.2f} ms",
        redis / sqlite,
    )


def _replicas(one: int, two: int, rounds: int) -> Row:
    found: dict[int, list[Load]] = {one: [], two: []}
    for _ in range(rounds):
        for port, loads in found.items():
            loads.append(uvloop.run(appends(port, CLIENTS, SECONDS)))
    single, double = (statistics.median(load.rate for load in loads) for loads in found.values())
    return shown(
        f"append of one word by {CLIENTS} clients, Redis and proxy: two replicas / one, a thread each",
        f"{double:,.0f}/s, {single:,.0f}/s",
        double / single,
    )
