"""A relay between a browser and a server that can be slow, mute or away, and outlives the server behind it.

Boundary: bytes of TCP connections, on threads of its own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK = 1 << 16


class Relay:
    """Listens on a port of its own; `target` is the port of the server, and may change."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        """Seconds that each piece of an answer takes longer."""
        self.mute = False
        """Whether answers get lost."""
        self.away = False
        """Whether nobody is there."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and wait for every thread."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._join, client)

    def _join(self, client: socket.socket) -> None:
        with client:
            if self.away:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            with server:
                self._open |= {client, server}
                asking = threading.Thread(target=self._pass_on, args=(client, server, False))
                asking.start()
                self._pass_on(server, client, True)
                asking.join()
                self._open -= {client, server}

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if answers:
                    time.sleep(self.delay)
                if not (answers and self.mute):
                    target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(target: int) -> Iterator[Relay]:
    """A relay to a port."""
    made = Relay(target)
    try:
        yield made
    finally:
        made.close()
