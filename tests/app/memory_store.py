"""Sessions in memory: the contract of `app.sessions.store` in its plainest form, for tests that need no file."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.errors import AnswerExistsError
from app.sessions.store import SessionRecord, StoredAnswer


class MemoryStore:
    """Keeps records in dictionaries. `fail`, where set, is raised by every operation."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.records: dict[str, SessionRecord] = {}
        self.answers: dict[str, StoredAnswer] = {}
        self.fail: Exception | None = None
        self.asked = 0
        """How often it was asked whether a session stands on a bundle."""

    async def open(self) -> list[str]:
        self._check()
        return []

    async def close(self) -> None:
        """Nothing to let go of."""

    async def create(self, record: SessionRecord, answer: StoredAnswer | None = None) -> None:
        self._keep(answer)
        self.records[record.session_id] = record

    async def load(self, session_id: str) -> SessionRecord | None:
        self._check()
        record = self.records.get(session_id)
        return record if record and record.expires_at > self.now() else None

    async def replace(self, record: SessionRecord, answer: StoredAnswer | None = None) -> bool:
        standing = await self.load(record.session_id)
        if standing is None or standing.version != record.version - 1:
            if answer and await self.answer(answer.key):
                raise AnswerExistsError(self.answers[answer.key])
            return False
        self._keep(answer)
        self.records[record.session_id] = record
        return True

    async def delete(self, session_id: str) -> bool:
        return bool(await self.load(session_id) and self.records.pop(session_id))

    async def answer(self, key: str) -> StoredAnswer | None:
        self._check()
        answer = self.answers.get(key)
        return answer if answer and answer.expires_at > self.now() else None

    async def purge(self) -> int:
        self._check()
        gone = [name for name, record in self.records.items() if record.expires_at <= self.now()]
        for name in gone:
            del self.records[name]
        return len(gone)

    async def count(self) -> int:
        self._check()
        return sum(record.expires_at > self.now() for record in self.records.values())

    async def holds(self, bundle: str) -> bool:
        self._check()
        self.asked += 1
        return any(record.bundle == bundle and record.expires_at > self.now() for record in self.records.values())

    def _keep(self, answer: StoredAnswer | None) -> None:
        self._check()
        if answer is None:
            return
        kept = self.answers.get(answer.key)
        if kept and kept.expires_at > self.now():
            raise AnswerExistsError(kept)
        self.answers[answer.key] = answer

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail
