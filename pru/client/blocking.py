"""The client for callers that block.

Boundary: names, types and documentation of the calls in `pru.client.calls`. `pru.client.asynchronous` has the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, Unpack

import httpx2

from app.openai_schemas import TokenizerInfo
from app.schemas import ModelCard, PerplexityAnswer, PredictAnswer, Ready
from app.session_schemas import AppendAnswer, ContinueAnswer, GeneratedToken, SessionAnswer
from model.errors import PRUError
from pru.client import calls
from pru.client.connection import Connection, connect
from pru.client.errors import NotFoundError
from pru.client.options import PredictOptions, ScoreOptions, SuggestOptions, WriteOptions
from pru.client.standing import Standing
from pru.client.writing import Writing


class PRUClient:
    """Asks one service; threads may share it. Errors are those of `pru.client.errors`.

    `base_url` is the service's address, or else the variable `PRU_URL`, or else `http://127.0.0.1:8000`. `api_key` is
    for a service that needs one, or else the variable `PRU_API_KEY`. `model` in a call names the one that is to answer,
    where the service has several. `timeout` is in seconds without anything from the service, by default a little more
    than it takes to refuse by its own deadline.
    A request that found no connection or an overloaded service is sent up to `max_retries` times more, after growing
    waits; a change of a session carries a key that makes it happen once all the same. `headers` go with each request.
    `transport` sends in httpx2's place (for other certificates: `httpx2.HTTPTransport(verify=...)`).
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 65.0,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._connection = connect(
            base_url, api_key=api_key, timeout=timeout, max_retries=max_retries, headers=headers, transport=transport
        )

    def predict(self, text: str, **options: Unpack[PredictOptions]) -> PredictAnswer:
        """The likeliest words after `text`, or the rest of the word begun with `prefix`, best first."""
        return self._connection.ask(calls.predict(text, options))

    def perplexity(self, text: str | Sequence[str], **options: Unpack[ScoreOptions]) -> PerplexityAnswer:
        """How likely a text is, or each of several from a fresh start."""
        return self._connection.ask(calls.perplexity(text, options))

    def tokenize(self, text: str, *, model: str | None = None) -> list[int]:
        """Ids of a text, with no `<eos>` added."""
        return self._connection.ask(calls.tokenize(text, model))

    def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """Ids as people write them."""
        return self._connection.ask(calls.detokenize(tokens, model))

    def tokenizer_info(self, *, model: str | None = None) -> TokenizerInfo:
        """The vocabulary's special tokens."""
        return self._connection.ask(calls.tokenizer_info(model))

    def model(self, name: str | None = None) -> ModelCard:
        """What is served, by name or else by default, how good it is, and what a request may ask."""
        return self._connection.ask(calls.card(name))

    def ready(self) -> Ready:
        """Which model would answer now; raises `UnavailableError` while none would. Asked once."""
        return self._connection.ask(calls.ready())

    def session(
        self, text: str = "", *, model: str | None = None, ttl: float | None = None, personal: bool = False
    ) -> Session:
        """Start a session after `text`. It ends `ttl` seconds after its last use, or by the service's default.

        A `personal` one remembers what is typed, and suggests and scores with it.
        """
        return Session(self._connection, self._connection.ask(calls.create(text, model, ttl, personal)))

    def attach(self, session_id: str) -> Session:
        """A session that is there already, where it stands now."""
        return Session(self._connection, self._connection.ask(calls.look(session_id)))

    def import_session(self, blob: bytes) -> Session:
        """A new session from what `Session.export` gave, on this or another server of the same bundle."""
        return Session(self._connection, self._connection.ask(calls.import_(blob)))

    def close(self) -> None:
        """Close the connections. Sessions live on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session(Standing):
    """A session on the service. A `with` block ends it; without one it lives until not used for its `ttl`."""

    def __init__(self, connection: Connection, answer: SessionAnswer) -> None:
        super().__init__(answer)
        self._connection = connection

    def append(self, text: str = "", **options: Unpack[SuggestOptions]) -> AppendAnswer:
        """Read `text` on: each token's score, and what may come next. An empty one only asks."""
        return self._at(self._connection.ask(calls.append(self.id, self.position, text, options)))

    def rewind(self, position: int) -> SessionAnswer:
        """Forget what was read after `position`, which is not before `earliest_position`."""
        return self._at(self._connection.ask(calls.rewind(self.id, position)))

    def fork(self) -> Session:
        """A new session in the same state."""
        return Session(self._connection, self._connection.ask(calls.fork(self.id)))

    def continue_(self, **options: Unpack[WriteOptions]) -> ContinueAnswer:
        """Let the model write on, and wait for all of it."""
        return self._at(self._connection.ask(calls.continue_(self.id, self.position, options)))

    def stream(self, **options: Unpack[WriteOptions]) -> TokenStream:
        """Let the model write on, token by token."""
        return TokenStream(self._connection, Writing(calls.stream(self.id, self.position, options), self._at))

    def export(self) -> bytes:
        """The session as portable, checked bytes."""
        return self._connection.ask(calls.export(self.id))

    def refresh(self) -> SessionAnswer:
        """Ask where the session stands, and go on from there."""
        return self._at(self._connection.ask(calls.look(self.id)))

    def close(self) -> None:
        """End the session on the service, if it has not ended."""
        with suppress(NotFoundError):
            self._connection.ask(calls.delete(self.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What went wrong in the block matters more than that the session lives on until its time.
        with suppress(*((PRUError,) if error else ())):
            self.close()


class TokenStream:
    """The tokens that a model writes, each as it comes; `result` is the whole answer.

    The request is sent with the first token asked for. The session has moved when the last one was handed out. One who
    leaves earlier cannot tell whether it has, since the service writes ahead: `Session.refresh` tells, and with
    `commit=False` it never moves.
    """

    def __init__(self, connection: Connection, writing: Writing) -> None:
        self._writing = writing
        self._tokens = connection.write(writing)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> GeneratedToken:
        return next(self._tokens)

    def result(self) -> ContinueAnswer:
        """The whole answer; reads on to the end first."""
        for _ in self:
            pass
        return self._writing.result()

    def close(self) -> None:
        """Leave the stream."""
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
