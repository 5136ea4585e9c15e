"""The client for asyncio.

Boundary: names, types and documentation of the calls in `pru.client.calls`. `pru.client.blocking` has the same.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from app.openai_schemas import TokenizerInfo
from app.schemas import ModelCard, PerplexityAnswer, PredictAnswer, Ready
from app.session_schemas import AppendAnswer, ContinueAnswer, GeneratedToken, SessionAnswer
from model.errors import PRUError
from pru.client import calls
from pru.client.calls import Call
from pru.client.connection import AsyncConnection, connect_async
from pru.client.errors import NotFoundError
from pru.client.options import PredictOptions, ScoreOptions, SuggestOptions, WriteOptions
from pru.client.standing import Standing
from pru.client.writing import Writing


class AsyncPRUClient:
    """Asks one service; tasks of one event loop may share it. Errors are those of `pru.client.errors`.

    `base_url` is the service's address, or else the variable `PRU_URL`, or else `http://127.0.0.1:8000`. `api_key` is
    for a service that needs one, or else the variable `PRU_API_KEY`. `model` in a call names the one that is to answer,
    where the service has several. `timeout` is in seconds without anything from the service, by default a little more
    than it takes to refuse by its own deadline.
    A request that found no connection or an overloaded service is sent up to `max_retries` times more, after growing
    waits; a change of a session carries a key that makes it happen once all the same. `headers` go with each request.
    `transport` sends in httpx2's place (for other certificates: `httpx2.AsyncHTTPTransport(verify=...)`).
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 65.0,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = connect_async(
            base_url, api_key=api_key, timeout=timeout, max_retries=max_retries, headers=headers, transport=transport
        )

    async def predict(self, text: str, **options: Unpack[PredictOptions]) -> PredictAnswer:
        """The likeliest words after `text`, or the rest of the word begun with `prefix`, best first."""
        return await self._connection.ask(calls.predict(text, options))

    async def perplexity(self, text: str | Sequence[str], **options: Unpack[ScoreOptions]) -> PerplexityAnswer:
        """How likely a text is, or each of several from a fresh start."""
        return await self._connection.ask(calls.perplexity(text, options))

    async def tokenize(self, text: str, *, model: str | None = None) -> list[int]:
        """Ids of a text, with no `<eos>` added."""
        return await self._connection.ask(calls.tokenize(text, model))

    async def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """Ids as people write them."""
        return await self._connection.ask(calls.detokenize(tokens, model))

    async def tokenizer_info(self, *, model: str | None = None) -> TokenizerInfo:
        """The vocabulary's special tokens."""
        return await self._connection.ask(calls.tokenizer_info(model))

    async def model(self, name: str | None = None) -> ModelCard:
        """What is served, by name or else by default, how good it is, and what a request may ask."""
        return await self._connection.ask(calls.card(name))

    async def ready(self) -> Ready:
        """Which model would answer now; raises `UnavailableError` while none would. Asked once."""
        return await self._connection.ask(calls.ready())

    def session(
        self, text: str = "", *, model: str | None = None, ttl: float | None = None, personal: bool = False
    ) -> Opening:
        """Start a session after `text`. It ends `ttl` seconds after its last use, or by the service's default.

        A `personal` one remembers what is typed, and suggests and scores with it.
        """
        return Opening(self._connection, calls.create(text, model, ttl, personal))

    def attach(self, session_id: str) -> Opening:
        """A session that is there already, where it stands now."""
        return Opening(self._connection, calls.look(session_id))

    def import_session(self, blob: bytes) -> Opening:
        """A new session from what `AsyncSession.export` gave, on this or another server of the same bundle."""
        return Opening(self._connection, calls.import_(blob))

    async def close(self) -> None:
        """Close the connections. Sessions live on."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncSession(Standing):
    """A session on the service. An `async with` block ends it; without one it lives until not used for its `ttl`."""

    def __init__(self, connection: AsyncConnection, answer: SessionAnswer) -> None:
        super().__init__(answer)
        self._connection = connection

    async def append(self, text: str = "", **options: Unpack[SuggestOptions]) -> AppendAnswer:
        """Read `text` on: each token's score, and what may come next. An empty one only asks."""
        return self._at(await self._connection.ask(calls.append(self.id, self.position, text, options)))

    async def rewind(self, position: int) -> SessionAnswer:
        """Forget what was read after `position`, which is not before `earliest_position`."""
        return self._at(await self._connection.ask(calls.rewind(self.id, position)))

    def fork(self) -> Opening:
        """A new session in the same state."""
        return Opening(self._connection, calls.fork(self.id))

    async def continue_(self, **options: Unpack[WriteOptions]) -> ContinueAnswer:
        """Let the model write on, and wait for all of it."""
        return self._at(await self._connection.ask(calls.continue_(self.id, self.position, options)))

    def stream(self, **options: Unpack[WriteOptions]) -> AsyncTokenStream:
        """Let the model write on, token by token."""
        return AsyncTokenStream(self._connection, Writing(calls.stream(self.id, self.position, options), self._at))

    async def export(self) -> bytes:
        """The session as portable, checked bytes."""
        return await self._connection.ask(calls.export(self.id))

    async def refresh(self) -> SessionAnswer:
        """Ask where the session stands, and go on from there."""
        return self._at(await self._connection.ask(calls.look(self.id)))

    async def close(self) -> None:
        """End the session on the service, if it has not ended."""
        with suppress(NotFoundError):
            await self._connection.ask(calls.delete(self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What went wrong in the block matters more than that the session lives on until its time.
        with suppress(*((PRUError,) if error else ())):
            await self.close()


class Opening:
    """A session being opened: `await` it, or open it with an `async with` block, which ends it."""

    def __init__(self, connection: AsyncConnection, call: Call[SessionAnswer]) -> None:
        self._connection = connection
        self._call = call
        self._session: AsyncSession | None = None

    def __await__(self) -> Generator[Any, None, AsyncSession]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncSession:
        self._session = await self
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.__aexit__(kind, error, traceback)

    async def _open(self) -> AsyncSession:
        return AsyncSession(self._connection, await self._connection.ask(self._call))


class AsyncTokenStream:
    """The tokens that a model writes, each as it comes; `result` is the whole answer.

    The request is sent with the first token asked for. The session has moved when the last one was handed out. One who
    leaves earlier cannot tell whether it has, since the service writes ahead: `AsyncSession.refresh` tells, and with
    `commit=False` it never moves.
    """

    def __init__(self, connection: AsyncConnection, writing: Writing) -> None:
        self._writing = writing
        self._tokens = connection.write(writing)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GeneratedToken:
        return await anext(self._tokens)

    async def result(self) -> ContinueAnswer:
        """The whole answer; reads on to the end first."""
        async for _ in self:
            pass
        return self._writing.result()

    async def close(self) -> None:
        """Leave the stream."""
        await self._tokens.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
