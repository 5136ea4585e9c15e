"""Redis servers of the tests' own, each on a Unix socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""Options with which Redis loses nothing that it acknowledged."""
START_SECONDS = 20.0


class RedisServer:
    """A server that is started, killed and started again; `client` asks it past whatever is tested."""

    def __init__(self, binary: str, folder: Path, options: tuple[str, ...]) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes]
        self.client = Redis(unix_socket_path=str(self.socket))
        # Nothing of it is reached from the network, and it writes its log nowhere.
        place = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--logfile", "/dev/null")
        self._command = [binary, *place, "--save", "", *options]

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen(self._command)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < end, "redis-server did not start"
            assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self.client.connection_pool.disconnect()

    def ask(self, *command: Any) -> Any:
        """What it replies to a command."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def configure(self, **options: str) -> None:
        """Change its configuration while it runs."""
        for name, value in options.items():
            self.ask("CONFIG", "SET", name.replace("_", "-"), value)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


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
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(binary, Path(folder), options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
