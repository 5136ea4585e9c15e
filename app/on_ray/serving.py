"""The service as replicas of Ray Serve, more of them while readings wait for an engine: `deploy/ray/serve.yaml`.

Boundary: the application as it is everywhere, in a process that Serve starts, asks and ends. Addresses, numbers of
replicas and patience are the file's. What belongs to `pru serve`'s own process is Serve's here: heads, connections and
slow clients are limited by its proxy or not at all, quotas and `/metrics` are each replica's.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingContext

from app.access.keyring import Keyring
from app.lifecycle import Lifecycle
from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings, load_settings
from model.errors import ConfigurationError, EngineError

QUEUE_SECONDS = "queue_seconds"
"""What replicas report: how long readings waited for the engine, on average since the last report."""
TARGET_SECONDS = 0.02
"""Mean wait above which there are to be more replicas: some calls of an engine, which take 4 ms each."""
CALM = 0.25
"""Share of it below which there may be one fewer."""
MOST_GROWTH = 2.0
"""A wait grows without bound as a replica fills up, so it tells that there are too few and hardly how many."""


class Replica:
    """One engine, its queue and its prefix cache. Sessions are in Redis, where every replica finds them."""

    def __init__(self) -> None:
        self._settings = load_settings()
        check(self._settings)
        self._seconds, self._count = 0.0, 0.0

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application, once in each replica; Serve begins and ends its lifespan."""
        app = create_app(self._settings)
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._metrics: Metrics = app.state.metrics
        # Serve sends nothing here before the lifespan has begun, and so nothing before the engine is warm.
        self._lifecycle.answers_while_starting = False
        return app

    def check_health(self) -> None:
        """Raise where the service failed, so that Serve puts another replica in this one's place."""
        if self._lifecycle.failure is not None:
            raise EngineError("the service has failed; the log says why")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The mean wait for the engine since this was asked last; 0 where nothing was read."""
        seconds, count = self._metrics.waited()
        waited, readings = seconds - self._seconds, count - self._count
        self._seconds, self._count = seconds, count
        return {QUEUE_SECONDS: waited / readings if readings else 0.0}


def check(settings: Settings) -> None:
    """Raise `ConfigurationError` where replicas would keep sessions apart, or let in whoever reaches them unasked."""
    if settings.session_store.startswith("sqlite:"):
        raise ConfigurationError(
            "replicas share sessions through Redis; name one that all machines reach by PRU_SESSION_STORE=redis://…"
        )
    nodes: Any = ray.nodes  # Without types.
    if _is_of_this_machine(settings.session_store) and len({node["NodeManagerAddress"] for node in nodes()}) > 1:
        raise ConfigurationError(
            "the cluster has several machines, and each would keep sessions in a Redis of its own; name one that all "
            "machines reach by PRU_SESSION_STORE=redis://HOST:PORT/DATABASE"
        )
    keyring = Keyring(settings)
    keyring.load()
    if not (keyring.is_needed or settings.allow_anonymous):
        raise ConfigurationError(
            "there are no keys, and Serve may listen where others than this machine ask; name a file of keys by "
            "PRU_KEYS_FILE, or say that everybody may with PRU_ALLOW_ANONYMOUS=true"
        )


def _is_of_this_machine(store: str) -> bool:
    """Whether an address means another Redis on each machine."""
    host = urlsplit(store).hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def replicas_for(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Serve's question how many replicas there are to be, answered by how long readings wait in those that there are.

    Serve itself keeps to the smallest and the largest number, and waits before it follows.
    """
    waits = list((context.aggregated_metrics or {}).get(QUEUE_SECONDS, {}).values())
    return replicas_by_wait(context.current_num_replicas, sum(waits) / len(waits) if waits else 0.0), {}


def replicas_by_wait(replicas: int, seconds: float) -> float:
    """How many replicas there are to be where there are some, and readings wait for so long on average."""
    if seconds > TARGET_SECONDS:
        return replicas * min(MOST_GROWTH, seconds / TARGET_SECONDS)
    return replicas - 1 if seconds < CALM * TARGET_SECONDS else replicas


application = serve.deployment(name="PRU")(serve.ingress()(Replica)).bind()
