"""Network between a client and a service, on which answers are lost, and servers that are no service of ours."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.app.serving import PATIENCE


@dataclass(frozen=True)
class Cut:
    """The next answer is passed on up to some bytes; then its connection ends, once the service has sent `seen`."""

    after: int
    seen: bytes = b""


class Network:
    """Passes on what is said, to a port of this machine, unless a cut is due."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cuts: deque[Cut] = deque()
        self.requests = 0
        """Connections' parcels that came from clients: a request of a few words is one."""

    def serve(self, client: socket.socket) -> None:
        """One connection."""
        with client, socket.create_connection(("127.0.0.1", self._port), PATIENCE) as service:
            asking = threading.Thread(target=self._pass_requests, args=(client, service))
            asking.start()
            self._pass_answers(service, client)
            for end in (client, service):
                _shut(end)
            asking.join()

    def _pass_requests(self, client: socket.socket, service: socket.socket) -> None:
        while data := _received(client):
            self.requests += 1
            service.sendall(data)
        _shut(service)

    def _pass_answers(self, service: socket.socket, client: socket.socket) -> None:
        while data := _received(service):
            if not self.cuts:
                client.sendall(data)
                continue
            cut = self.cuts.popleft()
            client.sendall(data[: cut.after])
            passed = min(len(data), cut.after)
            while passed < cut.after or cut.seen not in data:
                more = _received(service)
                assert more, "the service ended the answer before the cut"
                client.sendall(more[: max(0, cut.after - passed)])
                passed += len(more)
                data += more
            return


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(2**16)
    except OSError:
        return b""


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def network_to(port: int) -> Iterator[tuple[Network, str]]:
    """A network to a service's port, and the address of its near end."""
    network = Network(port)
    with accepting(network.serve) as url:
        yield network, url


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers whatever comes with some bytes and hangs up."""

    def serve(client: socket.socket) -> None:
        # A client may leave first. What it sent and nobody read would break the connection before it has the answer.
        with client, suppress(OSError):
            _received(client)
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            while _received(client):
                pass

    with accepting(serve) as url:
        yield url


@contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a port of this machine where each connection is served by a thread of its own."""
    clients: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            _shut(listening)
            acceptor.join()
            for client in clients:
                _shut(client)
            for thread in threads:
                thread.join()
