"""What clients return is what the service answers, and every method is there for both kinds of callers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints
from urllib.parse import unquote

import httpx2
import pytest

from app.schemas import PerplexityRequest, PredictRequest, Suggesting
from app.session_schemas import ContinueRequest
from pru.client import (
    AsyncPRUClient,
    AsyncSession,
    AsyncTokenStream,
    NotFoundError,
    Personal,
    PRUClient,
    Session,
    TokenStream,
    calls,
)
from pru.client.options import PredictOptions, ScoreOptions, SuggestOptions, WriteOptions
from tests.app.processes import Service
from tests.app.serving import make_app

TEXT = "the harbour is small ,\nbut unheard-of boats don't leave"


@pytest.fixture
def client(service: Service) -> Iterator[PRUClient]:
    with PRUClient(service.url) as it:
        yield it


def raw(service: Service, path: str, **fields: Any) -> dict[str, Any]:
    """What the service answers to a plain request."""
    response = service.ask(path, **fields) if fields else httpx2.get(service.url + path)
    assert response.status_code in {200, 201}, response.text
    answer: dict[str, Any] = response.json()
    return answer


def fields_of(answer: Any) -> dict[str, Any]:
    """An answer as JSON has it."""
    written: dict[str, Any] = answer.model_dump(mode="json", exclude_unset=True)
    return written


@pytest.mark.parametrize(
    "options", [{}, {"k": 2}, {"prefix": "bo"}, {"words_only": True, "k": 9}, {"include_special": True, "k": 50}]
)
def test_predictions_are_those_of_the_service(service: Service, client: PRUClient, options: SuggestOptions) -> None:
    assert fields_of(client.predict(TEXT, **options)) == raw(service, "/predict", text=TEXT, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"context": "the boats"},
        {"return_tokens": True, "include_eos": False},
        {"return_words": True, "oov_penalty": 3.5},
    ],
)
def test_scores_are_those_of_the_service(service: Service, client: PRUClient, options: ScoreOptions) -> None:
    assert fields_of(client.perplexity(TEXT, **options)) == raw(service, "/perplexity", text=TEXT, **options)
    texts = [TEXT, "", "the sea"]
    assert fields_of(client.perplexity(texts, **options)) == raw(service, "/perplexity", texts=texts, **options)


def test_the_model_its_readiness_and_its_ids_are_those_of_the_service(service: Service, client: PRUClient) -> None:
    assert fields_of(client.model()) == raw(service, "/model")
    assert fields_of(client.ready()) == raw(service, "/health/ready")
    assert fields_of(client.tokenizer_info()) == raw(service, "/tokenizer_info")
    ids = client.tokenize("the harbour is small")
    assert ids == raw(service, "/tokenize", prompt="the harbour is small")["tokens"]
    assert client.detokenize(ids) == "the harbour is small"


def test_a_session_reads_and_goes_back_as_over_plain_requests(service: Service, client: PRUClient) -> None:
    plain = raw(service, "/sessions", text="the harbour")["session_id"]
    with client.session("the harbour", ttl=100) as session:
        assert session.position == 2
        assert timedelta(seconds=90) < session.expires_at - datetime.now(UTC) < timedelta(seconds=101)
        answer = session.append("is small , but", k=3, words_only=True)
        expected = raw(service, f"/sessions/{plain}/append", text="is small , but", k=3, words_only=True)
        own = {"session_id", "expires_at"}
        assert {k: v for k, v in fields_of(answer).items() if k not in own} == {
            k: v for k, v in expected.items() if k not in own
        }
        assert (session.position, session.earliest_position) == (6, 0)
        assert fields_of(session.refresh()) == raw(service, f"/sessions/{session.id}")
        assert session.rewind(3).position == session.position == 3
        again = session.append("small", k=1)
        assert again.tokens[0].log_probability == pytest.approx(answer.tokens[1].log_probability, abs=1e-5)
        assert session.position == 4
    with pytest.raises(NotFoundError):
        client.attach(session.id)


def test_a_session_is_forked_moved_and_found_again(client: PRUClient) -> None:
    with client.session("the harbour is") as session, session.fork() as fork:
        assert (fork.id != session.id, fork.position) == (True, 3)
        fork.append("small")
        assert session.refresh().position == 3
        with client.import_session(fork.export()) as moved:
            assert moved.id not in {fork.id, session.id}
            found = client.attach(moved.id)
            assert found.position == 4
            assert found.append(k=4).predictions == fork.append(k=4).predictions


def test_a_personal_session_says_what_it_remembers_wherever_it_goes(service: Service, client: PRUClient) -> None:
    with client.session("Zanzibarra is small", personal=True) as session, session.fork() as fork:
        assert session.personal == fork.personal == Personal(tokens=3, own_words=1)
        [own] = fork.append(prefix="zan").predictions
        assert (own.word, own.token) == ("Zanzibarra", "<unk>")
        plain = raw(service, "/sessions", text="Zanzibarra is small", personal=True)["session_id"]
        assert (
            fields_of(fork.append("but", k=4))["predictions"]
            == (raw(service, f"/sessions/{plain}/append", text="but", k=4)["predictions"])
        )
        with fork.stream(max_tokens=2) as stream:
            assert stream.result().personal == fork.personal == Personal(tokens=4, own_words=1)
        with client.import_session(fork.export()) as moved:
            assert moved.personal == fork.personal
    with client.session("Zanzibarra is small") as session:
        assert session.personal is None
        assert "personal" not in fields_of(session.append())


def test_words_written_with_a_seed_are_those_of_the_service_whole_and_as_a_stream(
    service: Service, client: PRUClient
) -> None:
    options: WriteOptions = {"max_tokens": 8, "seed": 5, "temperature": 0.9, "top_k": 20, "top_p": 0.95}
    plain = raw(service, "/sessions", text="the harbour")["session_id"]
    expected = raw(service, f"/sessions/{plain}/continue", **options)
    with client.session("the harbour") as session, session.fork() as fork:
        whole = session.continue_(**options)
        with fork.stream(**options) as stream:
            tokens = list(stream)
        for answer in (whole, stream.result()):
            assert answer.text == expected["text"]
            assert fields_of(answer)["tokens"] == expected["tokens"]
            assert (answer.seed, answer.finish_reason, answer.committed) == (5, "length", True)
        assert tokens == whole.tokens
        assert session.position == fork.position == expected["position"] == 10
        assert session.continue_(commit=False, max_tokens=2).committed is False
        assert session.position == 10
        assert session.append("is").position == 11


def test_leaving_a_block_ends_a_session_and_what_went_wrong_in_it_is_what_is_raised(client: PRUClient) -> None:
    with pytest.raises(ZeroDivisionError), client.session() as session:
        raise ZeroDivisionError
    with pytest.raises(NotFoundError):
        session.refresh()
    session.close()
    with client.session() as other:
        other.close()


@pytest.mark.anyio
async def test_asyncio_gets_the_same_answers(service: Service, client: PRUClient) -> None:
    async with AsyncPRUClient(service.url) as asynchronous:
        assert await asynchronous.predict(TEXT, k=3) == client.predict(TEXT, k=3)
        assert await asynchronous.perplexity([TEXT, ""]) == client.perplexity([TEXT, ""])
        assert await asynchronous.model() == client.model()
        assert await asynchronous.ready() == client.ready()
        assert await asynchronous.tokenizer_info() == client.tokenizer_info()
        ids = await asynchronous.tokenize("the sea")
        assert ids == client.tokenize("the sea")
        assert await asynchronous.detokenize(ids) == "the sea"
        async with asynchronous.session("unheard-of", personal=True) as personal:
            assert personal.personal == Personal(tokens=3, own_words=1)
        async with asynchronous.session("the harbour", ttl=50) as session:
            blocking = client.session("the harbour")
            assert (await session.append("is", k=2)).predictions == blocking.append("is", k=2).predictions
            await session.rewind(2)
            async with session.fork() as fork, fork.stream(max_tokens=6, seed=3) as stream:
                written = [token async for token in stream]
            assert (await stream.result()).text == "".join(token.text for token in written)
            assert fork.position == 8
            blocking.rewind(2)
            assert written == blocking.continue_(max_tokens=6, seed=3).tokens
            assert (await session.continue_(max_tokens=6, seed=3)).tokens == written
            moved = await asynchronous.import_session(await session.export())
            assert moved.position == (await asynchronous.attach(moved.id)).position == 8
            assert (await moved.refresh()).position == 8
            await moved.close()
            with pytest.raises(NotFoundError):
                await moved.append("is")
        with pytest.raises(NotFoundError):
            await asynchronous.attach(session.id)


@pytest.mark.anyio
async def test_twenty_tasks_append_to_their_own_sessions_at_once(service: Service, client: PRUClient) -> None:
    words = ["the", "harbour", "is", "small"]

    async def read(asynchronous: AsyncPRUClient, rounds: int) -> list[float]:
        async with asynchronous.session("the boats") as session:
            found = []
            for word in words * rounds:
                found += [token.log_probability for token in (await session.append(word)).tokens]
            assert session.position == 2 + len(found)
            return found

    async with AsyncPRUClient(service.url) as asynchronous:
        read_at_once = await asyncio.gather(*(read(asynchronous, 1 + number % 3) for number in range(20)))
    scores = client.perplexity(" ".join(words * 3), context="the boats", return_tokens=True).results[0].tokens
    expected = [score.log_probability for score in scores]
    for found in read_at_once:
        assert found == pytest.approx(expected[: len(found)], abs=1e-5)


def test_threads_may_share_a_client(client: PRUClient) -> None:
    def read(number: int) -> list[float]:
        with client.session("the boats") as session:
            scores = [session.append(word).tokens[0].log_probability for word in ("the", "harbour", "is")]
            assert session.position == 5
            return scores

    with ThreadPoolExecutor(8) as threads:
        first, *others = threads.map(read, range(24))
    scored = client.perplexity("the harbour is", context="the boats", return_tokens=True).results[0].tokens[:3]
    assert first == pytest.approx([score.log_probability for score in scored], abs=1e-5)
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [(PRUClient, AsyncPRUClient), (Session, AsyncSession), (TokenStream, AsyncTokenStream)],
)
def test_both_kinds_have_the_same_methods_with_the_same_arguments(blocking: type, asynchronous: type) -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        methods = {name: it for name, it in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        methods["__init__"] = kind.__init__  # type: ignore[misc]
        return {name: [str(it) for it in inspect.signature(method).parameters] for name, method in methods.items()}

    assert surface(blocking) == surface(asynchronous)
    assert surface(blocking)["close"] == ["self"]


def test_every_route_of_the_model_and_of_sessions_is_asked() -> None:
    name = "{session_id}"
    made: list[calls.Call[Any]] = [
        calls.predict("", {}), calls.perplexity("", {}), calls.tokenize("", None),
        calls.detokenize([], None), calls.tokenizer_info(None), calls.card(None), calls.ready(),
        calls.create("", None, None, False), calls.import_(b""),
        calls.look(name), calls.delete(name), calls.append(name, 0, "", {}), calls.rewind(name, 0), calls.fork(name),
        calls.export(name), calls.continue_(name, 0, {}), calls.stream(name, 0, {}),
    ]  # fmt: skip
    routes = {
        (method.upper(), path)
        for path, methods in make_app().openapi()["paths"].items()
        for method in methods
        if not path.startswith(("/v1/", "/health/live", "/metrics"))
    }
    assert {(call.method, unquote(call.path)) for call in made} == routes
    assert {unquote(call.path) for call in made if call.key} == {
        path for method, path in routes if path.startswith("/sessions") and method == "POST"
    }


@pytest.mark.parametrize(
    ("options", "request_kind", "besides"),
    [
        (SuggestOptions, Suggesting, set()),
        (PredictOptions, PredictRequest, {"text"}),
        (ScoreOptions, PerplexityRequest, {"text", "texts"}),
        (WriteOptions, ContinueRequest, {"stream", "expected_position"}),
    ],
)
def test_options_are_the_fields_of_the_requests(options: type, request_kind: type, besides: set[str]) -> None:
    # The one field that is sent in more ways than it is kept in.
    sent = get_type_hints(request_kind) | ({"stop": str | list[str]} if request_kind is ContinueRequest else {})
    assert get_type_hints(options) == {
        name: hint for name, hint in sent.items() if name not in {"model_config", *besides}
    }
