"""What routes take from the application: typed access to `app.state`, which `app.main` fills."""

from __future__ import annotations

from fastapi import Request

from app.completions import Completions
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.model_service import ModelService
from app.served_model import ServedModel
from app.sessions.service import SessionService
from app.settings import Settings


def lifecycle(request: Request) -> Lifecycle:
    """Where the service is between start and stop."""
    found: Lifecycle = request.app.state.lifecycle
    return found


def service(request: Request) -> ModelService:
    """What answers; `ServiceError` while nothing does."""
    return lifecycle(request).service


def sessions(request: Request) -> SessionService:
    """What answers for sessions; `ServiceError` while nothing does."""
    return lifecycle(request).sessions


def completions(request: Request) -> Completions:
    """What answers for completions and ids; `ServiceError` while nothing does."""
    return lifecycle(request).completions


def metrics(request: Request) -> Metrics:
    """What is counted and timed."""
    found: Metrics = request.app.state.metrics
    return found


def served_model(request: Request) -> ServedModel:
    """The model behind the service; there is one as soon as the service is ready."""
    found: ServedModel = request.app.state.served_model
    return found


def settings(request: Request) -> Settings:
    """The settings the application was made with."""
    found: Settings = request.app.state.settings
    return found
