"""What routes take from the application: typed access to `app.state`, which `app.main` fills."""

from __future__ import annotations

from fastapi import Request

from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.models.registry import Registry
from app.models.running import RunningModel
from app.sessions.service import SessionService
from app.settings import Settings


def lifecycle(request: Request) -> Lifecycle:
    """Where the service is between start and stop."""
    found: Lifecycle = request.app.state.lifecycle
    return found


def models(request: Request) -> Registry:
    """The models that answer; `ServiceError` while none does."""
    return lifecycle(request).models


def model_of(request: Request, name: str | None) -> RunningModel:
    """The model that a request names, for a `with` block in which it is used; `ModelNotFoundError` where none is."""
    return models(request).named(name)


def sessions(request: Request) -> SessionService:
    """What answers for sessions; `ServiceError` while nothing does."""
    return lifecycle(request).sessions


def metrics(request: Request) -> Metrics:
    """What is counted and timed."""
    found: Metrics = request.app.state.metrics
    return found


def settings(request: Request) -> Settings:
    """The settings the application was made with."""
    found: Settings = request.app.state.settings
    return found
