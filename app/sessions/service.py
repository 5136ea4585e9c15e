"""What the service does with sessions: start, read on, go back, fork, write on, and move them between servers.

Boundary: requests in, answers out. Where sessions live is a `SessionStore`; HTTP and WebSocket are above. A change is
computed from the session as stored and kept only if it still stands there, with the answer to its `Idempotency-Key` in
the same transaction: it happens once or not at all. Within one process whoever changes a session takes turns.

A session is stored under a name that begins with its owner's (`app.access.caller.owned`), so that another's is not
found, exactly as one that there never was.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np

from app.access.caller import bare, caller, owned
from app.admission import Admission
from app.errors import (
    AnswerExistsError,
    FieldError,
    PositionError,
    SessionNotFoundError,
)
from app.models.registry import Registry
from app.models.running import RunningModel
from app.personal import Adaptation
from app.reader import aside
from app.session_schemas import (
    MAX_SEED,
    MAX_TTL,
    AppendAnswer,
    AppendRequest,
    ContinueAnswer,
    ContinueRequest,
    CreateRequest,
    GeneratedToken,
    RewindRequest,
    SessionAnswer,
)
from app.sessions import blob, typed
from app.sessions.commit import seen_through
from app.sessions.cursor import FURTHEST, Cursor, after, back_to
from app.sessions.records import Idempotency, check_can_be_kept, cursor_of, kept_answer, memory_of, moved_to, replayed
from app.sessions.store import SessionRecord, SessionStore
from app.sessions.turns import Turns
from app.sessions.writing_on import generation_of
from model.vocabulary import Tokens

A = TypeVar("A", bound=SessionAnswer)
Work = Callable[[RunningModel, Cursor], Awaitable[tuple[Cursor, dict[str, Any]]]]
"""From where a session stands, with its model, to where it goes, and what its answer says besides."""


class SessionService:
    """Sessions of all models. A session stays with the bundle that it was started on, whatever its name leads to."""

    def __init__(
        self, models: Registry, admission: Admission, store: SessionStore, default_ttl: float, adaptation: Adaptation
    ) -> None:
        self._models = models
        self._admission = admission
        self._store = store
        self._default_ttl = default_ttl
        self._adaptation = adaptation
        self._turns = Turns()

    async def create(self, request: CreateRequest, once: Idempotency | None = None) -> SessionAnswer:
        """Start a session after a text."""
        async with self._admission.admit() as claim:
            with self._models.named(request.model) as model:
                reader = model.service.reader
                tokens = await reader.tokenise(("text",), request.text, 0, goes_on=True)
                claim(len(tokens))

                async def cursor() -> Cursor:
                    return await typed.begin(reader, request, tokens, self._adaptation)

                return await self._create(model, cursor, request.ttl or self._default_ttl, once)

    async def look(self, session_id: str) -> SessionAnswer:
        """Where a session stands. Looking is no use: it does not put off its end."""
        record = await self._load(owned(session_id))
        return self._answer(SessionAnswer, self._models.of_bundle(record.bundle), record)

    async def append(self, session_id: str, request: AppendRequest, once: Idempotency | None = None) -> AppendAnswer:
        """Read text on; say how likely it was, and what may come next."""
        async with self._admission.admit() as claim:
            tokens: Tokens | None = None

            async def work(model: RunningModel, cursor: Cursor) -> tuple[Cursor, dict[str, Any]]:
                nonlocal tokens
                _expect(request.expected_position, cursor)
                if tokens is None:
                    tokens = await model.service.reader.tokenise(("text",), request.text, 0, goes_on=True)
                    check_can_be_kept(once, len(tokens))
                    claim(len(tokens))
                _check_room(cursor, len(tokens), "text")
                return await typed.read_on(model, cursor, request, tokens, claim, self._adaptation)

            return await self._change(session_id, AppendAnswer, work, once)

    async def rewind(self, session_id: str, request: RewindRequest, once: Idempotency | None = None) -> SessionAnswer:
        """Go back to an earlier position."""

        async def work(model: RunningModel, cursor: Cursor) -> tuple[Cursor, dict[str, Any]]:
            if not cursor.anchor_position <= request.position <= cursor.position:
                raise FieldError(
                    ("position",),
                    f"the session can go back from {cursor.position} to {cursor.anchor_position} at the furthest; "
                    "make a new one from its text to go further",
                )
            caller().charge(request.position - cursor.anchor_position)
            return await back_to(model.service.reader, cursor, request.position), {}

        async with self._admission.admit():
            return await self._change(session_id, SessionAnswer, work, once)

    async def fork(self, session_id: str, once: Idempotency | None = None) -> SessionAnswer:
        """A new session where this one stands."""
        async with self._admission.admit():
            record = await self._load(owned(session_id))

            async def cursor() -> Cursor:
                return cursor_of(record)

            with self._models.of_bundle(record.bundle) as model:
                return await self._create(model, cursor, record.ttl, once)

    async def delete(self, session_id: str) -> None:
        """End a session."""
        if not await self._store.delete(owned(session_id)):
            raise _unknown()

    async def export(self, session_id: str) -> bytes:
        """A session as portable bytes."""
        record = await self._load(owned(session_id))
        self._models.of_bundle(record.bundle)
        return blob.to_blob(blob.Moved(record.bundle, cursor_of(record), record.ttl))

    async def import_(self, data: bytes, once: Idempotency | None = None) -> SessionAnswer:
        """A new session from exported bytes."""
        with self._models.of_bundle(blob.bundle_of(data)) as model:
            reader = model.service.reader
            moved = blob.from_blob(data, len(reader.root), reader.hidden_size, len(reader.vocabulary))

            async def cursor() -> Cursor:
                memory = moved.cursor.memory
                return replace(moved.cursor, memory=memory and memory.cut(self._adaptation.window))

            async with self._admission.admit():
                return await self._create(model, cursor, min(max(moved.ttl, 1.0), MAX_TTL), once)

    async def write_on(
        self, session_id: str, request: ContinueRequest, once: Idempotency | None = None
    ) -> AsyncIterator[GeneratedToken | ContinueAnswer]:
        """Let the model write: its tokens one by one, then the answer, by which time the session has moved."""
        name = owned(session_id)
        async with self._admission.admit(), self._turns.take(name):
            if kept := await self._kept(once, ContinueAnswer):
                for token in kept.tokens:
                    yield token
                yield kept
                return
            record = await self._load(name)
            with self._models.of_bundle(record.bundle) as model:
                async for item in self._write_on(model, record, request, once):
                    yield item

    async def _write_on(
        self, model: RunningModel, record: SessionRecord, request: ContinueRequest, once: Idempotency | None
    ) -> AsyncIterator[GeneratedToken | ContinueAnswer]:
        """Let a session's model write, and move the session."""
        cursor, reader = cursor_of(record), model.service.reader
        _expect(request.expected_position, cursor)
        _check_room(cursor, request.max_tokens, "max_tokens")
        seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
        generation = generation_of(reader, request, cursor, seed, self._adaptation)
        caller().charge(request.max_tokens)
        try:
            tokens = []
            async for word in generation.words(cursor.state, request.max_tokens):
                token = GeneratedToken(
                    token=reader.vocabulary.word_of(word.token_id),
                    text=word.text,
                    log_probability=word.log_probability,
                )
                tokens.append(token)
                yield token
        finally:
            caller().give_back(request.max_tokens - len(generation.ids))
        if request.commit:
            cursor = await after(reader, cursor, np.array(generation.ids, np.int32), list(generation.states))
        moved = moved_to(record, cursor)
        answer = self._answer(
            ContinueAnswer,
            model,
            moved,
            text="".join(token.text for token in tokens),
            tokens=tokens,
            finish_reason=generation.finish_reason,
            seed=seed,
            committed=request.commit,
        )
        if not await seen_through(self._store.replace(moved, kept_answer(once, answer))):
            standing = await self._load(record.session_id)
            raise PositionError(standing.position, "the session was changed meanwhile; ask again from there")
        yield answer

    async def _create(
        self, model: RunningModel, make: Callable[[], Awaitable[Cursor]], ttl: float, once: Idempotency | None
    ) -> SessionAnswer:
        """Keep a new session, or find the one that the same request made before."""
        name = owned(secrets.token_urlsafe(16))
        async with self._turns.take(once.key if once else name):
            if kept := await self._kept(once, SessionAnswer):
                return kept
            blank = SessionRecord(name, model.identity.sha256, 0, 0, b"", b"", 0, b"", ttl, 0.0)
            record = moved_to(blank, await make())
            answer = self._answer(SessionAnswer, model, record)
            try:
                await seen_through(self._store.create(record, kept_answer(once, answer)))
            except AnswerExistsError as error:
                return replayed(error.answer, once, SessionAnswer)
            return answer

    async def _change(self, session_id: str, kind: type[A], work: Work, once: Idempotency | None) -> A:
        """Move a session by `work`, which is done again where another server was faster."""
        name = owned(session_id)
        async with self._turns.take(name):
            if known := await self._kept(once, kind):
                return known
            while True:
                record = await self._load(name)
                with self._models.of_bundle(record.bundle) as model:
                    cursor, fields = await work(model, cursor_of(record))
                    moved = moved_to(record, cursor)
                    size = len(fields.get("tokens", ()))
                    answer = await aside(size, partial(self._answer, kind, model, moved, **fields))
                    kept = await aside(size, partial(kept_answer, once, answer))
                    try:
                        if await seen_through(self._store.replace(moved, kept)):
                            return answer
                    except AnswerExistsError as error:
                        return replayed(error.answer, once, kind)

    def _answer(self, kind: type[A], model: RunningModel, record: SessionRecord, **fields: Any) -> A:
        memory = memory_of(record)
        return kind(
            model=model.identity,
            session_id=bare(record.session_id),
            position=record.position,
            earliest_position=record.anchor_position,
            expires_at=datetime.fromtimestamp(record.expires_at, UTC),
            personal=memory and memory.told(self._adaptation.window),
            **fields,
        )

    async def _load(self, name: str) -> SessionRecord:
        record = await self._store.load(name)
        if record is None:
            raise _unknown()
        return record

    async def _kept(self, once: Idempotency | None, kind: type[A]) -> A | None:
        """What the same request was answered before."""
        stored = await self._store.answer(once.key) if once else None
        return replayed(stored, once, kind) if stored else None


def _expect(position: int | None, cursor: Cursor) -> None:
    if position is not None and position != cursor.position:
        raise PositionError(
            cursor.position, f"the session stands at {cursor.position}, not at {position}; nothing was changed"
        )


def _check_room(cursor: Cursor, tokens: int, field: str) -> None:
    if cursor.position + tokens > FURTHEST:
        raise FieldError(
            (field,), f"a session goes as far as {FURTHEST} and this one stands at {cursor.position}; start another"
        )


def _unknown() -> SessionNotFoundError:
    return SessionNotFoundError("no session has this id, or it has expired; make a new one from its text")
