"""`WS /sessions/{id}/stream`: the session routes as frames, answered in the order they are done.

Boundary: frames in, frames out; what they ask for is `app.sessions.service`'s. A frame is one JSON object with an `id`
of the client's, which every frame that answers it carries too. Appends and rewinds happen in the order they came; a
client that leaves takes with it what is not done.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError
from structlog.typing import FilteringBoundLogger

from app.access.caller import caller, owned
from app.access.middleware import SUBPROTOCOL
from app.errors import TOLD, StartingError
from app.problems import document_of, document_of_invalid
from app.running import Running, Tell
from app.schemas import Answer, Problem
from app.session_schemas import (
    AppendFrame,
    CancelFrame,
    ContinueAnswer,
    ContinueDone,
    ContinueFrame,
    Frame,
    GeneratedToken,
    RewindFrame,
    SessionAnswer,
)
from app.sessions.records import Idempotency
from app.sessions.service import SessionService
from app.tracing.current import part, set_status

MOST_PENDING = 32
"""Frames of one client that may be in work; more are read when one is done."""
GOING_AWAY, NOT_TEXT, TRY_AGAIN = 1012, 1003, 1013
"""Close codes (RFC 6455, section 7.4, and what was registered since)."""

router = APIRouter()

WorkFrame = AppendFrame | RewindFrame | ContinueFrame
Item = SessionAnswer | GeneratedToken
"""What comes of a frame: of one that writes on as a stream its tokens first, and the answer."""

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
        self._works: dict[str | int, Running[Item]] = {}
        """What frames ask for, by their ids: the last where a client gave it to several."""
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
            await asyncio.sleep(0)  # What came just before has not begun yet.
            work = self._works.get(frame.target)
            stopping = work is not None and work.stop()
            await self._send(frame.id, "cancel", {"target": frame.target, "cancelled": stopping})
            return
        task = asyncio.create_task(self._answer(frame, request_id))
        self._working.add(task)
        task.add_done_callback(self._done)

    async def end(self) -> None:
        """Give up whatever is in work: nobody is there to be told."""
        self._left = True
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        self._working.discard(task)

    async def _answer(self, frame: WorkFrame, request_id: str) -> None:
        """Do what a frame asks for and send what comes of it. Only the work can be given up, and no sending."""
        with part(f"frame {frame.type}"):
            work = self._works[frame.id] = Running(partial(self._work, frame))
            try:
                await self._tell(frame, work)
            except asyncio.CancelledError:
                if not self._left:
                    await self._send(frame.id, "cancelled", {})
            except WebSocketDisconnect:
                self._left = True
            except Exception as error:
                await self._send(frame.id, "error", self._problem(error, request_id))
            finally:
                await work.close()
                if self._works.get(frame.id) is work:
                    del self._works[frame.id]

    async def _work(self, frame: WorkFrame, tell: Tell[Item]) -> None:
        caller().begin()
        once = self._once(frame)
        if isinstance(frame, AppendFrame):
            tell(await self._sessions.append(self._session_id, frame, once))
        elif isinstance(frame, RewindFrame):
            tell(await self._sessions.rewind(self._session_id, frame, once))
        else:
            async for item in self._sessions.write_on(self._session_id, frame, once):
                if frame.stream or isinstance(item, ContinueAnswer):
                    tell(item)

    async def _tell(self, frame: WorkFrame, work: Running[Item]) -> None:
        while isinstance(item := await work.next(), GeneratedToken):
            await self._send(frame.id, "token", item)
        if isinstance(frame, ContinueFrame) and frame.stream:
            await self._send(frame.id, "done", ContinueDone(**item.model_dump(exclude={"text", "tokens"})))
        else:
            await self._send(frame.id, frame.type, item)

    def _problem(self, error: Exception, request_id: str) -> Problem:
        """What to tell of an error; the log holds those that nobody meant to tell."""
        if not isinstance(error, TOLD):
            self._logger.error("failed", request_id=request_id, route="/sessions/{session_id}/stream", error=error)
        document = document_of(error, request_id)
        set_status(document.status)
        return document

    def _once(self, frame: WorkFrame) -> Idempotency | None:
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
