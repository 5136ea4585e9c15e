"""What is known of a session on the client's side, the same for callers that block and for asyncio."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from app.session_schemas import Personal, SessionAnswer

A = TypeVar("A", bound=SessionAnswer)


class Standing:
    """Where a session stood when the service last told this object.

    Changes are sent with that position. So where another client was faster, or a change's answer was lost for good, the
    next one raises `ConflictError` and changes nothing; `refresh` then takes over where the session stands. For the
    same reason one object makes one change at a time.
    """

    def __init__(self, answer: SessionAnswer) -> None:
        self._last = answer

    @property
    def id(self) -> str:
        """The session's name, by which `attach` finds it."""
        return self._last.session_id

    @property
    def position(self) -> int:
        """Tokens read after the initial `<eos>`."""
        return self._last.position

    @property
    def earliest_position(self) -> int:
        """The furthest it can be rewound."""
        return self._last.earliest_position

    @property
    def expires_at(self) -> datetime:
        """When it ends unless it is used."""
        return self._last.expires_at

    @property
    def personal(self) -> Personal | None:
        """What it remembers of its user; None where it is no personal session."""
        return self._last.personal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self.position}>"

    def _at(self, answer: A) -> A:
        """Note where an answer says that the session stands, and hand it on."""
        self._last = answer
        return answer
