"""A server process of its own: `python -m app` with a bundle, on a free port.

Boundary: starts it, waits for it, ends it, and says how much memory it took. What it is asked is the others' business.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Connection, StatusError, get

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
POLL_SECONDS = 0.01
"""Between two looks at whether a server is up: far below what a start takes, and seldom enough not to slow it."""


class ServerError(Exception):
    """The server ended or never became ready."""


@dataclass(frozen=True)
class Server:
    """A ready server. `start_seconds` is from the process's start to the first 200 of `/health/ready`."""

    process_id: int
    port: int
    start_seconds: float

    def peak_bytes(self) -> int:
        """Largest resident memory so far, as Linux counts it."""
        return self._status("VmHWM")

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return self._status("VmRSS")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process_id}/status").read_text()
        [kibibytes] = re.findall(rf"^{name}:\s+([0-9]+) kB$", status, re.MULTILINE)
        return int(kibibytes) << 10


@contextmanager
def serving(
    bundle: Path,
    threads: int,
    folder: Path,
    workers: int = 1,
    session_store: str | None = None,
    *,
    models: Path | None = None,
    keys: str = "",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A ready server of `bundle`, or of a file of `models`, with other settings at their defaults.

    With `keys`, the text of a key file, it needs them. `variables` are those of its environment that are no settings of
    its own. Its log and whatever it keeps go into a new `folder`.
    """
    folder.mkdir(parents=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PRU_")}
    settings = {
        "PRU_BUNDLE": str(bundle),
        "PRU_THREADS": str(threads),
        "PRU_WORKERS": str(workers),
        "PRU_PORT": "0",
        "XDG_STATE_HOME": str(folder),
    }
    if keys:
        settings["PRU_KEYS"] = keys
    if session_store is not None:
        settings["PRU_SESSION_STORE"] = session_store
    if models is not None:
        settings["PRU_MODELS"] = str(models)
    environment = {**inherited, **settings, **(variables or {})}
    log = folder / "log"
    # A file takes the log's lines without anyone who reads them and takes time from the server.
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
        try:
            port = _wait_until_ready(process, log, began + PATIENCE)
            yield Server(process.pid, port, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, deadline: float) -> int:
    """The port of the server, once it is ready."""
    while time.perf_counter() < deadline and process.poll() is None:
        port = _port(log)
        if port and _is_ready(port):
            return port
        time.sleep(POLL_SECONDS)
    raise ServerError(f"the server did not become ready; its last words: {log.read_text()[-500:]}")


def _port(log: Path) -> int | None:
    """What the log says it listens on, if it does yet."""
    for line in log.read_text().splitlines():
        if '"listening"' in line:
            port: int = json.loads(line)["port"]
            return port
    return None


def _is_ready(port: int) -> bool:
    try:
        with Connection(port) as connection:
            connection.ask(get("/health/ready"))
    except StatusError:
        return False
    return True
