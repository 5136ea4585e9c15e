"""`/sessions`: start, read on, go back, fork, write on, look, end, and move between servers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.sse import EventSourceResponse, format_sse_event

from app.access.caller import owned
from app.routes.documentation import REFUSALS, problems
from app.routes.events import failed
from app.routes.model import require_json
from app.routes.state import sessions
from app.running import Running
from app.schemas import Answer
from app.session_schemas import (
    AppendAnswer,
    AppendRequest,
    ContinueAnswer,
    ContinueDone,
    ContinueRequest,
    CreateRequest,
    GeneratedToken,
    RewindRequest,
    SessionAnswer,
)
from app.sessions.records import Idempotency
from app.sessions.writing_on import Item, last_of, running

BLOB = "application/octet-stream"

router = APIRouter(prefix="/sessions", tags=["sessions"])

NOT_THERE = problems(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
)
CHANGES = REFUSALS | problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
KEY_HELP = "The same key and body again, within 24 hours, get the same answer, and nothing happens twice."


async def once(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=200, pattern="^[!-~]+$", description=KEY_HELP)
    ] = None,
) -> Idempotency | None:
    """The request's key, if it has one, with what tells this request from others: its route and its body."""
    if idempotency_key is None:
        return None
    told = request.url.path.encode() + b"\0" + await request.body()
    return Idempotency(owned(idempotency_key), hashlib.sha256(told).hexdigest())


Once = Annotated[Idempotency | None, Depends(once)]


@router.post(
    "", status_code=HTTPStatus.CREATED, dependencies=[Depends(require_json)], responses=REFUSALS, summary="Start"
)
async def create(body: CreateRequest, request: Request, key: Once) -> SessionAnswer:
    """Start a session after `text`. It ends `ttl` seconds after its last use."""
    return await sessions(request).create(body, key)


@router.post(
    "/import",
    status_code=HTTPStatus.CREATED,
    responses=CHANGES,
    summary="Bring in",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {BLOB: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def import_(request: Request, key: Once) -> SessionAnswer:
    """A new session from what `GET /sessions/{id}/export` answered, here or on another server of the same bundle."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != BLOB:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as Content-Type: {BLOB}")
    return await sessions(request).import_(await request.body(), key)


@router.get("/{session_id}", responses=NOT_THERE, summary="Look")
async def look(session_id: str, request: Request) -> SessionAnswer:
    """Where a session stands."""
    return await sessions(request).look(session_id)


@router.delete("/{session_id}", status_code=HTTPStatus.NO_CONTENT, responses=NOT_THERE, summary="End")
async def delete(session_id: str, request: Request) -> None:
    """End a session and forget its state."""
    await sessions(request).delete(session_id)


@router.post("/{session_id}/append", dependencies=[Depends(require_json)], responses=CHANGES, summary="Read on")
async def append(session_id: str, body: AppendRequest, request: Request, key: Once) -> AppendAnswer:
    """Read `text` on; answer each token's score and the likeliest next words. An empty `text` only asks.

    Appends to one session take turns. With `expected_position`, a client that was overtaken gets 409 and where the
    session stands.
    """
    return await sessions(request).append(session_id, body, key)


@router.post("/{session_id}/rewind", dependencies=[Depends(require_json)], responses=CHANGES, summary="Go back")
async def rewind(session_id: str, body: RewindRequest, request: Request, key: Once) -> SessionAnswer:
    """Back to any of the last 64 positions."""
    return await sessions(request).rewind(session_id, body, key)


@router.post("/{session_id}/fork", status_code=HTTPStatus.CREATED, responses=CHANGES, summary="Fork")
async def fork(session_id: str, request: Request, key: Once) -> SessionAnswer:
    """A new session in the same state."""
    return await sessions(request).fork(session_id, key)


@router.get(
    "/{session_id}/export",
    response_class=Response,
    responses=NOT_THERE | {200: {"content": {BLOB: {"schema": {"type": "string", "format": "binary"}}}}},
    summary="Take along",
)
async def export(session_id: str, request: Request) -> Response:
    """The session as portable, checked bytes."""
    return Response(await sessions(request).export(session_id), media_type=BLOB)


@router.post(
    "/{session_id}/continue",
    dependencies=[Depends(require_json)],
    responses=CHANGES
    | {
        200: {
            "description": "One answer, or with `stream` the events `token` (GeneratedToken) … `done` (ContinueDone); "
            "should it fail on the way, an event `error` (Problem) ends them.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
    summary="Write on",
)
async def continue_(session_id: str, body: ContinueRequest, request: Request, key: Once) -> ContinueAnswer:
    """Let the model write on, a word drawn at a time. The session moves when all is written, or not at all."""
    written = sessions(request).write_on(session_id, body, key)
    if not body.stream:
        return await last_of(written)
    words = running(written)
    return EventSourceResponse(_events(await words.first(), words, request))  # type: ignore[return-value]


async def _events(item: Item, words: Running[Item], request: Request) -> AsyncIterator[bytes]:
    """Events from the first item on."""
    try:
        while isinstance(item, GeneratedToken):
            yield _event("token", item)
            item = await words.next()
        yield _event("done", ContinueDone(**item.model_dump(exclude={"text", "tokens"})))
    except Exception as error:
        yield _event("error", failed(error, request))
    finally:
        await words.close()


def _event(kind: str, answer: Answer) -> bytes:
    return format_sse_event(event=kind, data_str=answer.model_dump_json(exclude_none=True))
