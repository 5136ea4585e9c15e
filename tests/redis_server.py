"""Redis servers of the tests' own, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.redis_server import RedisServer, running_redis


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running server. Where there is none to run, the test is skipped, or fails where CI is to have one."""
    binary = shutil.which("redis-server")
    if binary is None:
        missing = "needs redis-server (Debian and Ubuntu: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    # Not in pytest's folder, whose path may be longer than that of a socket can be.
    with (
        tempfile.TemporaryDirectory(prefix="redis-") as folder,
        running_redis(binary, Path(folder), *options) as server,
    ):
        yield server
