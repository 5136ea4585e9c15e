"""`WS /sessions/{id}/stream`: the session routes as frames, answered in the order they are done.

Boundary: frames in, frames out; what they ask for is `app.sessions.service`'s. A frame is one JSON object with an `id`
of the client's, which every frame that answers it carries too. Appends and rewinds happen in the order they came; a
client that leaves takes with it what is not done.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError
from structlog.typing import FilteringBoundLogger

from app.access.caller import caller, owned
from app.access.middleware import SUBPROTOCOL
from app.errors import TOLD, StartingError
from app.problems import document_of, document_of_invalid
from app.schemas import Answer, Problem
from app.session_schemas import (
    AppendFrame,
    CancelFrame,
    ContinueDone,
    ContinueFrame,
    Frame,
    GeneratedToken,
    RewindFrame,
)
from app.sessions.records import Idempotency
from app.sessions.service import SessionService
from app.sessions.writing_on import last_of, running
from app.tracing.current import part, set_status

MOST_PENDING = 32
"""Frames of one client that may be in work; more are read when one is done."""
GOING_AWAY, NOT_TEXT, TRY_AGAIN = 1012, 1003, 1013
"""Close codes (RFC 6455, section 7.4, and what was registered since)."""

router = APIRouter()

_FRAMES: TypeAdapter[Any] = TypeAdapter(Frame)


@router.websocket("/sessions/{session_id}/stream")
async def stream(websocket: WebSocket, session_id: str) -> None:
    """Talk with one session."""
    lifecycle = websocket.app.state.lifecycle
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
    if lifecycle.draining or lifecycle.failure is not None:
        await websocket.close(GOING_AWAY)
        return
    try:
        sessions = lifecycle.sessions
    except StartingError:
        await websocket.close(TRY_AGAIN)
        return
    conversation = Conversation(websocket, session_id, sessions, websocket.app.state.logger)
    try:
        while True:
            await conversation.take(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
    except KeyError:  # A frame of bytes has no text.
        await websocket.close(NOT_TEXT)
    finally:
        await conversation.end()


class Conversation:
    """The frames of one client in work."""

    def __init__(
        self, websocket: WebSocket, session_id: str, sessions: SessionService, logger: FilteringBoundLogger
    ) -> None:
        self._websocket = websocket
        self._session_id = session_id
        self._sessions = sessions
        self._logger = logger
        self._connection = uuid.uuid4().hex
        self._count = 0
        self._left = False
        self._room = asyncio.Semaphore(MOST_PENDING)
        self._tasks: dict[str | int, asyncio.Task[None]] = {}
        """By the frame's id: the last where a client gave it to several."""
        self._working: set[asyncio.Task[None]] = set()

    async def take(self, text: str) -> None:
        """Begin what a frame asks for; wait first while too much is in work."""
        await self._room.acquire()
        self._count += 1
        request_id = f"{self._connection}-{self._count}"
        try:
            frame = _FRAMES.validate_json(text)
        except ValidationError as error:
            self._room.release()
            await self._send(None, "error", _refused(error, request_id))
            return
        if isinstance(frame, CancelFrame):
            self._room.release()
            task = self._tasks.get(frame.target)
            await self._send(frame.id, "cancel", {"target": frame.target, "cancelled": bool(task and task.cancel())})
            return
        task = asyncio.create_task(self._answer(frame, request_id))
        self._tasks[frame.id] = task
        self._working.add(task)
        task.add_done_callback(lambda _: self._done(frame.id, task))

    async def end(self) -> None:
        """Give up whatever is in work: nobody is there to be told."""
        self._left = True
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)

    def _done(self, frame_id: str | int, task: asyncio.Task[None]) -> None:
        self._room.release()
        self._working.discard(task)
        if self._tasks.get(frame_id) is task:
            del self._tasks[frame_id]

    async def _answer(self, frame: AppendFrame | RewindFrame | ContinueFrame, request_id: str) -> None:
        """Do what a frame asks for and send what came of it."""
        with part(f"frame {frame.type}"):
            await self._do(frame, request_id)

    async def _do(self, frame: AppendFrame | RewindFrame | ContinueFrame, request_id: str) -> None:
        try:
            caller().begin()
            if isinstance(frame, ContinueFrame) and frame.stream:
                await self._write_on(frame)
            else:
                await self._send(frame.id, frame.type, await self._ask(frame))
        except asyncio.CancelledError:
            if not self._left:
                await self._send(frame.id, "cancelled", {})
        except WebSocketDisconnect:
            self._left = True
        except Exception as error:
            if not isinstance(error, TOLD):
                self._logger.error("failed", request_id=request_id, route="/sessions/{session_id}/stream", error=error)
            document = document_of(error, request_id)
            set_status(document.status)
            await self._send(frame.id, "error", document)

    async def _ask(self, frame: AppendFrame | RewindFrame | ContinueFrame) -> Answer:
        once = self._once(frame)
        if isinstance(frame, AppendFrame):
            return await self._sessions.append(self._session_id, frame, once)
        if isinstance(frame, RewindFrame):
            return await self._sessions.rewind(self._session_id, frame, once)
        return await last_of(self._sessions.write_on(self._session_id, frame, once))

    async def _write_on(self, frame: ContinueFrame) -> None:
        words = running(self._sessions.write_on(self._session_id, frame, self._once(frame)))
        try:
            item = await words.next()
            while isinstance(item, GeneratedToken):
                await self._send(frame.id, "token", item)
                item = await words.next()
            await self._send(frame.id, "done", ContinueDone(**item.model_dump(exclude={"text", "tokens"})))
        finally:
            await words.close()

    def _once(self, frame: AppendFrame | RewindFrame | ContinueFrame) -> Idempotency | None:
        if frame.idempotency_key is None:
            return None
        told = f"{self._session_id}\0{frame.model_dump_json(exclude={'id', 'idempotency_key'})}"
        return Idempotency(owned(frame.idempotency_key), hashlib.sha256(told.encode()).hexdigest())

    async def _send(self, frame_id: str | int | None, kind: str, answer: Answer | dict[str, Any]) -> None:
        content = answer if isinstance(answer, dict) else answer.model_dump(mode="json", exclude_none=True)
        await self._websocket.send_json({**content, "id": frame_id, "type": kind})


def _refused(error: ValidationError, request_id: str) -> Problem:
    """Why a frame is none: what is wrong with it, or that its sender may ask no more. It is a request all the same."""
    try:
        caller().begin()
    except TOLD as refusal:
        return document_of(refusal, request_id)
    return document_of_invalid(error.errors(include_url=False, include_input=False), request_id)
