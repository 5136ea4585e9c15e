"""What streams of server-sent events share: an error on the way is an event, since the status was sent long before."""

from __future__ import annotations

from fastapi import Request
from structlog.typing import FilteringBoundLogger

from app.errors import TOLD
from app.problems import document_of
from app.schemas import Problem


def failed(error: Exception, request: Request) -> Problem:
    """What to tell of an error whose status can no more be sent; the log holds those that nobody meant to tell."""
    request_id: str = request.state.request_id
    if not isinstance(error, TOLD):
        logger: FilteringBoundLogger = request.app.state.logger
        logger.error("failed", request_id=request_id, route=request.scope["route"].path, error=error)
    return document_of(error, request_id)
