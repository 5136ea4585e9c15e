"""A Redis of one's own, on a Unix socket in a folder.

Boundary: the process. What is kept in it is the others' business.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""Options with which Redis loses nothing that it acknowledged."""
START_SECONDS = 20.0


class RedisServer:
    """A server that is started, killed and started again; `client` asks it past whatever is measured or tested."""

    def __init__(self, binary: str, folder: Path, options: tuple[str, ...]) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes]
        self.client = Redis(unix_socket_path=str(self.socket))
        # Nothing of it is reached from the network, and it writes its log nowhere.
        place = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--logfile", "/dev/null")
        self._command = [binary, *place, "--save", "", *options]

    def start(self) -> None:
        """Start, and wait until it answers; `RuntimeError` where it does not."""
        self.process = subprocess.Popen(self._command)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("redis-server did not start")
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
def running_redis(binary: str, folder: Path, *options: str) -> Iterator[RedisServer]:
    """A running server that keeps its files in `folder`, whose path is short enough for a socket."""
    server = RedisServer(binary, folder, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
