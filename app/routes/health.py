"""Probes: is the process alive, and should it be sent requests."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request

from app.routes.documentation import problems
from app.routes.state import lifecycle
from app.schemas import Live, Ready

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="The process answers")
async def live() -> Live:
    """200 for as long as the process can answer at all."""
    return Live()


@router.get("/health/ready", responses=problems(HTTPStatus.SERVICE_UNAVAILABLE), summary="Requests would be answered")
async def ready(request: Request) -> Ready:
    """200 once the bundle's sums were checked and the engine is warm; 503 before, and when the service is stopping."""
    now = lifecycle(request)
    now.check_taking_requests()
    return Ready(model=now.models.default.identity)
