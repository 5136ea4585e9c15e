"""Where the stores of a test are, and what time it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.redis_server import RedisServer
from tests.app.sessions.records import Clock
from tests.redis_server import redis_server


@pytest.fixture
def clock() -> Clock:
    """The clock of every store that a test opens."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of every store that a test opens."""
    return tmp_path / "sessions.db"


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[RedisServer]:
    """One server for all tests that only use it."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(_redis_server: RedisServer) -> RedisServer:
    """The Redis of every store that a test opens, with nothing in it."""
    _redis_server.ask("FLUSHALL")
    return _redis_server
