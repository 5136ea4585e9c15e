"""The process behind `python -m app serve`: a socket, uvicorn, and a graceful end.

Boundary: the process and its signals. The bundle was opened and the address is had before any request is taken, so
that neither a broken bundle nor a taken port starts a server.
"""

from __future__ import annotations

import atexit
import gc
import ipaddress
import math
import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

import uvicorn
from structlog.typing import FilteringBoundLogger

from app import metrics
from app.access.keyring import Keyring
from app.http_protocol import Protocol
from app.lifecycle import Lifecycle
from app.logs import capture_library_logs, make_logger
from app.main import create_app
from app.models.last_served import LastServed
from app.served_model import ServedModel
from app.settings import Settings
from app.tracing import tracing_of_environment
from app.workers import Worker, become_worker
from model.errors import ConfigurationError, EngineError, PRUError

BACKLOG = 2048
GRACE_SECONDS = 5
"""Time, beyond the deadline, for the last answers to be sent."""


class Server(uvicorn.Server):
    """Says when it begins to drain, and ends where the service failed or its parent is gone."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, logger: FilteringBoundLogger, worker: Worker | None
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._logger = logger
        self._worker = worker

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        orphan = self._worker is not None and self._worker.is_orphan
        return await super().on_tick(counter) or orphan or self._lifecycle.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, refuse what is new, wait for what is in flight, and end the lifespan."""
        self._lifecycle.draining = True
        self._logger.info("draining")
        if self._worker is not None:
            self._worker.tell_leaving()
        await super().shutdown(sockets)


def run(settings: Settings, served: ServedModel) -> None:
    """Serve a checked bundle until a signal; raise `EngineError` where its engine could not be started, or died."""
    atexit.register(_give_up_unwritten)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    keyring = Keyring(settings)
    keyring.load()
    check_reach(settings, keyring)
    if settings.models is not None:
        # Heard once there is something to read again; until then it must not end the process.
        signal.signal(signal.SIGHUP, lambda _, __: None)
    tracing = tracing_of_environment()
    listeners = listen(settings.host, settings.port, settings.workers)
    logger = make_logger(settings.log_level)
    capture_library_logs(logger)
    host, port = listeners[0].getsockname()[:2]
    logger.info("listening", host=host, port=port, bundle=str(settings.models or settings.bundle))
    last = LastServed() if settings.models is not None and len(listeners) > 1 else None
    forwarded = {signal.SIGHUP} if settings.models is not None else set()
    worker = become_worker(listeners, logger, metrics.forget, forwarded) if len(listeners) > 1 else None
    if worker:
        metrics.write_at(worker.place)
    app = create_app(settings, served, logger, keyring=keyring, tracing=tracing, last=last)
    lifecycle: Lifecycle = app.state.lifecycle

    def on_ready() -> None:
        # What was made so far stays: to look through it for garbage now and then would take tens of milliseconds.
        gc.collect()
        gc.freeze()
        if worker:
            worker.tell_ready()

    lifecycle.on_ready = on_ready
    if settings.models is not None:
        signal.signal(signal.SIGHUP, lambda _, __: lifecycle.look_again())
    # A worker's refusals while it starts would come between the answers of others.
    lifecycle.answers_while_starting = worker is None
    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="on",
        ws_max_size=settings.max_body_bytes,
        # As with bodies: what is compressed is not unpacked. It would be more work than what it saves for a few words.
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + GRACE_SECONDS,
    )
    Server(config, lifecycle, logger, worker).run(sockets=[worker.listener if worker else listeners[0]])
    if (failure := lifecycle.failure) is not None:
        # The message of what was not raised on purpose may hold what a user sent; the log has where it was raised.
        raise EngineError(f"the service failed: {failure if isinstance(failure, PRUError) else type(failure).__name__}")


def check_reach(settings: Settings, keyring: Keyring) -> None:
    """Raise `ConfigurationError` where others than this machine could reach a service that needs no keys."""
    if keyring.is_needed or settings.allow_anonymous:
        return
    with suppress(OSError):  # What is no address at all is for `listen` to say.
        for *_, address in socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM):
            if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
                raise ConfigurationError(
                    f"PRU_HOST is {settings.host}, where others than this machine may ask, and there are no keys; make "
                    "one with `pru keys new NAME`, or say that everybody may with PRU_ALLOW_ANONYMOUS=true"
                )


def listen(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Listening sockets on one port; `ConfigurationError` where the address cannot be had."""
    listeners: list[socket.socket] = []
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if count > 1:
            # Sockets that share a port would share it with those of another server, too.
            socket.create_server(address[:2], family=family).close()
        for _ in range(count):
            # What the system chose for the first, where it was to choose, is what the others share.
            place = (address[0], listeners[0].getsockname()[1] if listeners else address[1])
            listeners.append(socket.create_server(place, family=family, backlog=BACKLOG, reuse_port=count > 1))
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose others with PRU_HOST and PRU_PORT"
        ) from None
    return listeners


def _give_up_unwritten() -> None:
    """Forget what of the log could not be written: Python would try again, and end with status 120 for it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(_: int, __: FrameType | None) -> None:
    """End with status 0: before the server runs, and when uvicorn hands its signal on after a graceful end."""
    sys.exit(0)
