"""Several serving processes on one address, and the one that starts them and starts them anew.

Boundary: processes, signals and sockets. What a worker does is `app.server`'s business: `become_worker` returns in each
of them and never in the parent, which serves nothing and has no threads, so that it may fork at any time.

Each worker has a listening socket of its own on the same port, over which the system spreads connections evenly; all
workers on one socket would leave most connections to whichever wakes first. The parent keeps every socket open, so that
what connects while a worker is being replaced waits in the socket's queue for the next one. A worker that was told
alone to end says so, and the next one takes its socket while it finishes what it has.

The parent blocks its signals and waits for them, one at a time, so that none comes between two of its steps.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

RESTART_SECONDS = 1.0
"""Between the end of a worker and the start of the next in its place: one that fails at once must not take a core."""
_STOP = {signal.SIGINT, signal.SIGTERM}
_LEAVING = signal.SIGRTMIN
"""What a worker that ends tells its parent. Signals from here on are all delivered, however many come at once."""
_SIGNALS = {*_STOP, signal.SIGCHLD, _LEAVING}


@dataclass(frozen=True)
class Worker:
    """What one serving process was given."""

    listener: socket.socket
    place: int
    """A number that no other worker has at the same time, and small, since the next ones take it over."""
    parent: int
    _ready: int

    def tell_ready(self) -> None:
        """Let the parent know that this worker's start succeeded, so that it is replaced should it end."""
        os.write(self._ready, b"1")

    def tell_leaving(self) -> None:
        """Let the parent know that this worker takes no more connections, so that the next one does."""
        with suppress(ProcessLookupError):
            os.kill(self.parent, _LEAVING)

    @property
    def is_orphan(self) -> bool:
        """Whether the parent is gone, and with it whoever would end this process."""
        return os.getppid() != self.parent


def become_worker(
    listeners: Sequence[socket.socket],
    logger: FilteringBoundLogger,
    on_end: Callable[[int], None],
    forwarded: Set[signal.Signals] = frozenset(),
) -> Worker:
    """Start a worker for each listener and return in each; in the parent, replace those that end, until a signal.

    A second signal kills those that did not end at the first. A first worker that ends before it was ready would do so
    again: it ends the others, and its status is the parent's. `on_end` is told, in the parent, the place of each that
    ended. Signals that are `forwarded` are every worker's.
    """
    return _Parent(listeners, logger, on_end, forwarded).run()


@dataclass
class _Child:
    listener: socket.socket
    place: int
    said: int
    """Where it says that it is ready."""
    was_ready: bool = False
    is_replaced: bool = False


class _Parent:
    def __init__(
        self,
        listeners: Sequence[socket.socket],
        logger: FilteringBoundLogger,
        on_end: Callable[[int], None],
        forwarded: Set[signal.Signals],
    ) -> None:
        self._listeners = listeners
        self._logger = logger
        self._on_end = on_end
        self._forwarded = forwarded
        self._heard = _SIGNALS | forwarded
        self._pid = os.getpid()
        self._running: dict[int, _Child] = {}
        self._proven: set[socket.socket] = set()
        """Listeners that had a worker that was ready, so that what ends the next one is no mistake of the settings."""
        self._stopping = False
        self._status = 0

    def run(self) -> Worker:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._heard)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        missing = list(self._listeners)
        while True:
            for listener in missing:
                if worker := self._start(listener):
                    return worker
            if not self._running:
                sys.exit(self._status if self._status >= 0 else 128 - self._status)
            missing = self._wait()
            # Between an end and a start, a signal to stop is heard at once.
            if missing and signal.sigtimedwait(_STOP, RESTART_SECONDS):
                self._stop()
            if self._stopping:
                missing = []

    def _start(self, listener: socket.socket) -> Worker | None:
        """Fork; the worker, in the child."""
        taken = {child.place for child in self._running.values()}
        place = next(number for number in itertools.count() if number not in taken)
        said, says = os.pipe()
        pid = os.fork()
        if pid:
            os.close(says)
            os.set_blocking(said, False)
            self._running[pid] = _Child(listener, place, said)
            return None
        for inherited in (said, *(child.said for child in self._running.values())):
            os.close(inherited)
        for other in self._listeners:
            if other is not listener:
                other.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._heard)
        return Worker(listener, place, self._pid, says)

    def _wait(self) -> list[socket.socket]:
        """Wait for a signal and do as it says; the listeners that want a new worker."""
        heard = signal.sigwaitinfo(self._heard)
        if heard.si_signo in _STOP:
            self._stop()
            return []
        if heard.si_signo in self._forwarded:
            for pid in self._running:
                os.kill(pid, heard.si_signo)
            return []
        if heard.si_signo == _LEAVING:
            child = self._running.get(heard.si_pid)
            if child is None or child.is_replaced or not self._hears_ready(child):
                return []
            child.is_replaced = True
            self._logger.warning("a worker leaves", worker=heard.si_pid)
            return [child.listener]
        return self._reap()

    def _reap(self) -> list[socket.socket]:
        """Take leave of all that ended; the listeners that nobody serves any more."""
        missing = []
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, code = ended
                # Other children this process was given: by a shell that became it, or as a container's first.
                if child := self._running.pop(pid, None):
                    missing += self._bury(pid, child, os.waitstatus_to_exitcode(code))
        return missing

    def _bury(self, pid: int, child: _Child, status: int) -> list[socket.socket]:
        was_ready = self._hears_ready(child)
        os.close(child.said)
        self._on_end(child.place)
        if self._stopping:
            return []
        self._logger.error("a worker ended", worker=pid, status=status, was_ready=was_ready)
        if child.listener not in self._proven:
            self._status = status
            self._stop()
        return [] if child.is_replaced else [child.listener]

    def _hears_ready(self, child: _Child) -> bool:
        """Whether a worker has said by now that it is ready, or was."""
        with suppress(BlockingIOError):
            child.was_ready = child.was_ready or bool(os.read(child.said, 1))
        if child.was_ready:
            self._proven.add(child.listener)
        return child.was_ready

    def _stop(self) -> None:
        """Tell all workers to end, or kill them where they were told before; nobody takes connections any more."""
        number = signal.SIGKILL if self._stopping else signal.SIGTERM
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        for pid in self._running:
            os.kill(pid, number)
