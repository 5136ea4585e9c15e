"""Serving processes, and what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.app.serving import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]

SERVE_SMALL = """
from app.server import run
from app.settings import load_settings
from tests.app.fakes import fake_model

run(load_settings(), fake_model())
"""
"""Serves a small model."""

SERVE_SLOWLY = """
import sys, time
from app.server import run
from app.settings import load_settings
from tests.app.fakes import NumpyEngine, fake_model

def work():
    print("engine", file=sys.stderr, flush=True)
    time.sleep(float(sys.argv[1]))

run(load_settings(), fake_model(build=lambda size: NumpyEngine(size, before=work)))
"""
"""Serves a small model that takes some seconds for each call of its engine, and says so on standard error."""


class Service:
    """A serving process, the address it listens on and the lines it logged so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.said: list[str] = []
        self._readers = [threading.Thread(target=read) for read in (self._read_logs, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def wait_until_listening(self) -> None:
        """Wait until the process has its address."""
        until(lambda: bool(self.events("listening")) or self.process.poll() is not None)
        [listening] = self.events("listening")
        self.url = f"http://127.0.0.1:{listening['port']}"
        self.port: int = listening["port"]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Every logged line of one event."""
        return [line for line in self.lines if line["event"] == event]

    def end(self) -> None:
        """Kill the process and read what it printed to the end, before its pipes are closed."""
        self.process.kill()
        for reader in self._readers:
            reader.join()

    def wait_until_ready(self) -> None:
        """Wait until requests are answered."""
        until(lambda: bool(self.events("ready")))

    def ask(self, path: str, **fields: Any) -> httpx2.Response:
        """POST fields."""
        return httpx2.post(f"{self.url}{path}", json=fields, timeout=PATIENCE)

    def workers(self) -> set[int]:
        """The processes that it started, and that serve."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def open_files(self) -> int:
        """Files, sockets and the like that the process holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Threads of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def resident_bytes(self) -> int:
        """Memory of the process, as Linux counts it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kibibytes] = re.findall(r"^VmRSS:\s+([0-9]+) kB$", status, re.MULTILINE)
        return int(kibibytes) << 10

    def _read_logs(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PRU_")}
    return {**inherited, "PYTHONPATH": str(ROOT), **{f"PRU_{name.upper()}": value for name, value in settings.items()}}


@contextmanager
def served(*command: str, **settings: str) -> Iterator[Service]:
    """A serving process: `python COMMAND` on a free port."""
    with subprocess.Popen(
        [sys.executable, *command],
        env=environment(port="0", **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        service = Service(process)
        try:
            service.wait_until_listening()
            yield service
        finally:
            service.end()


def served_with(store: str) -> AbstractContextManager[Service]:
    """A process that serves a small model and keeps its sessions in a store."""
    return served("-c", SERVE_SMALL, session_store=store)


def served_slowly(seconds: float) -> AbstractContextManager[Service]:
    """A process that serves a small model which takes `seconds` for each call of its engine."""
    return served("-c", SERVE_SLOWLY, str(seconds))


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """What a process printed and how it ended."""
    return subprocess.run(
        [sys.executable, *arguments], env=environment(**settings), capture_output=True, text=True, check=False, cwd=ROOT
    )
