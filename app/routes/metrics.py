"""`GET /metrics`: what Prometheus scrapes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from app.access.caller import caller
from app.routes.documentation import problems
from app.routes.state import metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses=problems(HTTPStatus.SERVICE_UNAVAILABLE)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def scrape(request: Request) -> Response:
    """Every counter, gauge and histogram, of all workers together.

    What each holder of a key did is told to keys whose `routes` name `metrics`, and its sum to others.
    """
    accept = request.headers.get("accept", "")
    body, content_type = await asyncio.to_thread(metrics(request).exposition, accept, by_key=caller().sees_holders)
    return Response(body, headers={"Content-Type": content_type})
