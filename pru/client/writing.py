"""A continuation on its way: what was handed out of it, over however many connections it took.

Boundary: server-sent events in, tokens and the answer out; connections are `pru.client.connection`'s.

The session has moved when the event `done` was made, and not before. Where the connection breaks, the same request is
sent again, with the same key and seed: if all was written the service answers the same once more, and if not it writes
the same words again. Those that were handed out before are passed over.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx2

from app.schemas import Problem
from app.session_schemas import ContinueAnswer, ContinueDone, GeneratedToken
from pru.client.calls import Call
from pru.client.errors import AnswerError, BrokenStreamError, ConnectionFailedError, api_error


class Writing:
    """The tokens of one `call`, and in the end its `answer`, which `moved` is told of."""

    def __init__(self, call: Call[ContinueDone], moved: Callable[[ContinueAnswer], object]) -> None:
        self.call = call
        self._moved = moved
        self.answer: ContinueAnswer | None = None
        self._tokens: list[GeneratedToken] = []
        self._place = 0
        """Tokens that came over the present connection."""

    def begin(self) -> None:
        """A connection opens: its tokens come from the first on."""
        self._place = 0

    def take(self, event: httpx2.ServerSentEvent) -> GeneratedToken | None:
        """The next token, if the event brings one; raises the error that it tells of."""
        try:
            if event.event == "token":
                return self._token(GeneratedToken.model_validate_json(event.data))
            if event.event == "done":
                self._end(self.call.read(event.data.encode()))
            elif event.event == "error":
                raise api_error(Problem.model_validate_json(event.data))
        except ValueError:
            raise AnswerError(
                f"the event {event.event} has fields that this client does not know; use the service's version"
            ) from None
        return None

    def close(self) -> None:
        """A connection ended; raises `ConnectionFailedError` where that was too early."""
        if self.answer is None:
            raise ConnectionFailedError(
                "the stream ended before its event done; whether the session moved is not known: look at it"
            )

    def result(self) -> ContinueAnswer:
        """The answer; raises `BrokenStreamError` where the stream was left before it came."""
        if self.answer is None:
            raise BrokenStreamError("the stream was left before its end; start another for a whole answer")
        return self.answer

    def _token(self, token: GeneratedToken) -> GeneratedToken | None:
        place, self._place = self._place, self._place + 1
        if place == len(self._tokens):
            self._tokens.append(token)
            return token
        if (token.token, token.text) != (self._tokens[place].token, self._tokens[place].text):
            raise _other_words()
        return None

    def _end(self, done: ContinueDone) -> None:
        if self._place != len(self._tokens):
            raise _other_words()
        text = "".join(token.text for token in self._tokens)
        self.answer = ContinueAnswer(**done.model_dump(), text=text, tokens=self._tokens)
        self._moved(self.answer)


def _other_words() -> BrokenStreamError:
    return BrokenStreamError(
        "the stream broke, and sent again the model wrote other words than those handed out; look where the session "
        "stands, and rewind it or go on from there"
    )
