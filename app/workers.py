"""Several serving processes on one address, and the one that starts them and starts them anew.

Boundary: processes, signals and sockets. What a worker does is `app.server`'s business: `become_worker` returns in each
of them and never in the parent, which serves nothing and has no threads, so that it may fork at any time.

Each worker has a listening socket of its own on the same port, over which the system spreads connections evenly; all
workers on one socket would leave most connections to whichever wakes first. The parent keeps every socket open, so that
what connects while a worker is being replaced waits in the socket's queue for the next one.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from structlog.typing import FilteringBoundLogger

RESTART_SECONDS = 1.0
"""Between the end of a worker and the start of the next in its place: one that fails at once must not take a core."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Worker:
    """What one serving process was given."""

    listener: socket.socket
    parent: int
    _ready: int

    def tell_ready(self) -> None:
        """Let the parent know that this worker's start succeeded, so that it is replaced should it end."""
        os.write(self._ready, b"1")

    @property
    def is_orphan(self) -> bool:
        """Whether the parent is gone, and with it whoever would end this process."""
        return os.getppid() != self.parent


def become_worker(
    listeners: Sequence[socket.socket], logger: FilteringBoundLogger, on_end: Callable[[int], None]
) -> Worker:
    """Start a worker for each listener and return in each; in the parent, replace those that end, until a signal.

    A first worker that ends before it was ready would do so again: it ends the others, and its status is the parent's.
    `on_end` is told, in the parent, the id of each that ended.
    """
    return _Parent(listeners, logger, on_end).run()


class _Parent:
    def __init__(
        self, listeners: Sequence[socket.socket], logger: FilteringBoundLogger, on_end: Callable[[int], None]
    ) -> None:
        self._listeners = listeners
        self._logger = logger
        self._on_end = on_end
        self._pid = os.getpid()
        self._running: dict[int, tuple[socket.socket, int]] = {}
        """Each worker's listener, and where it says that it is ready."""
        self._proven: set[socket.socket] = set()
        """Listeners that had a worker that was ready, so that what ends the next one is no mistake of the settings."""
        self._stopping = False

    def run(self) -> Worker:
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}

        def start(listener: socket.socket) -> Worker | None:
            # A signal must find the worker among those it is handed on to.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            if not self._stopping:
                said, says = os.pipe()
                pid = os.fork()
                if not pid:
                    os.close(said)
                    return self._in_the_child(listener, says, before)
                os.close(says)
                self._running[pid] = listener, said
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return None

        for listener in self._listeners:
            if worker := start(listener):
                return worker
        status = 0
        while self._running:
            pid, code = os.waitpid(-1, 0)
            if pid not in self._running:
                continue  # A child that this process was given: by a shell that became it, or as a container's first.
            listener, said = self._running.pop(pid)
            was_ready = bool(os.read(said, 1))
            os.close(said)
            if was_ready:
                self._proven.add(listener)
            self._on_end(pid)
            if self._stopping:
                continue
            ended = os.waitstatus_to_exitcode(code)
            self._logger.error("a worker ended", worker=pid, status=ended, was_ready=was_ready)
            if listener not in self._proven:
                status = ended
                self._stop(signal.SIGTERM, None)
                continue
            time.sleep(RESTART_SECONDS)
            if worker := start(listener):
                return worker
        sys.exit(status if status >= 0 else 128 - status)

    def _in_the_child(
        self, listener: socket.socket, says: int, handlers: dict[signal.Signals, Callable[..., object] | int | None]
    ) -> Worker:
        for _, said in self._running.values():
            os.close(said)
        for other in self._listeners:
            if other is not listener:
                other.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return Worker(listener, self._pid, says)

    def _stop(self, _: int, __: FrameType | None) -> None:
        """Hand a signal on, once; connections that nobody will take are refused from here on."""
        if not self._stopping:
            self._stopping = True
            for listener in self._listeners:
                listener.close()
            for pid in self._running:
                with suppress(ProcessLookupError):  # It may have ended just now.
                    os.kill(pid, signal.SIGTERM)
