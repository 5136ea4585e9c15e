"""The process behind `python -m app serve`: a socket, uvicorn, and a graceful end.

Boundary: the process and its signals. The bundle was opened and the address is had before any request is taken, so
that neither a broken bundle nor a taken port starts a server.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from structlog.typing import FilteringBoundLogger

from app.http_protocol import Protocol
from app.lifecycle import Lifecycle
from app.logs import capture_library_logs, make_logger
from app.main import create_app
from app.served_model import ServedModel
from app.settings import Settings
from model.errors import ConfigurationError, EngineError

BACKLOG = 2048
GRACE_SECONDS = 5
"""Time, beyond the deadline, for the last answers to be sent."""


class Server(uvicorn.Server):
    """Marks the service as draining at the first signal, and ends where the engine failed."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, logger: FilteringBoundLogger) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._logger = logger

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse what is new from here on; what is in flight is finished."""
        self._lifecycle.draining = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        return await super().on_tick(counter) or self._lifecycle.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, wait for what is in flight, and end the lifespan."""
        self._logger.info("draining")
        await super().shutdown(sockets)


def run(settings: Settings, served: ServedModel) -> None:
    """Serve a checked bundle until a signal; raise `EngineError` where its engine could not be started, or died."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    listener = listen(settings.host, settings.port)
    logger = make_logger(settings.log_level)
    capture_library_logs(logger)
    app = create_app(settings, served, logger)
    lifecycle: Lifecycle = app.state.lifecycle
    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="on",
        ws_max_size=settings.max_body_bytes,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + GRACE_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    logger.info("listening", host=host, port=port, bundle=str(settings.bundle))
    Server(config, lifecycle, logger).run(sockets=[listener])
    if lifecycle.failure is not None:
        raise EngineError(f"the engine failed: {lifecycle.failure}")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `ConfigurationError` where the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose others with PRU_HOST and PRU_PORT"
        ) from None


def _leave(_: int, __: FrameType | None) -> None:
    """End with status 0: before the server runs, and when uvicorn hands its signal on after a graceful end."""
    sys.exit(0)
