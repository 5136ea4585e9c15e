"""Sessions in Redis against sessions in SQLite, and two replicas behind the proxy against one.

Boundary: comparisons of whole servers, on one machine whose cores they share with Redis, the proxy and the clients.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop
from redis import Redis
from redis.exceptions import RedisError

from benchmarks.asking import CLIENTS, SECONDS, appends
from benchmarks.harness import Row, shown
from benchmarks.load import Load
from benchmarks.proxy import find_haproxy, proxy
from benchmarks.server import serving

START_SECONDS = 20.0


def scale_rows(bundle: Path, folder: Path, rounds: int) -> list[Row]:
    """The comparisons, as far as the machine has Redis and HAProxy."""
    redis, haproxy = shutil.which("redis-server"), find_haproxy()
    if redis is None:
        return []
    with ExitStack() as running:
        store = running.enter_context(_redis(redis, folder))
        in_sqlite = running.enter_context(serving(bundle, 1, folder / "sqlite"))
        in_redis = [
            running.enter_context(serving(bundle, 1, folder / name, session_store=store)) for name in ("one", "two")
        ]
        found = [_stores(in_sqlite.port, in_redis[0].port, rounds)]
        if haproxy is not None:
            ports = [server.port for server in in_redis]
            (folder / "before one").mkdir()
            (folder / "before two").mkdir()
            before_one = running.enter_context(proxy(haproxy, ports[:1], folder / "before one"))
            before_two = running.enter_context(proxy(haproxy, ports, folder / "before two"))
            found.append(_replicas(before_one, before_two, rounds))
        return found


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


@contextmanager
def _redis(binary: str, folder: Path) -> Iterator[str]:
    """The address of a Redis that loses nothing it acknowledged."""
    socket = folder / "redis.sock"
    place = ("--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--logfile", "/dev/null")
    durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    process = subprocess.Popen([binary, *place, *durable])
    client = Redis(unix_socket_path=str(socket))
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(client):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        client.close()
        process.kill()
        process.wait()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
