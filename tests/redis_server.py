"""Redis servers of the tests' own, each in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.redis_server import RedisServer, running_redis
from tests.commands import required


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running server. Where there is none to run, the test is skipped, or fails where CI is to have one."""
    binary = required(shutil.which("redis-server"), "redis-server")
    # Not in pytest's folder, whose path may be longer than that of a socket can be.
    with (
        tempfile.TemporaryDirectory(prefix="redis-") as folder,
        running_redis(binary, Path(folder), *options) as server,
    ):
        yield server
