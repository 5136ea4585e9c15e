"""Clients of a service that needs keys and has several models."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from model.errors import ConfigurationError
from pru import (
    AsyncPRUClient,
    ForbiddenError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
    PRUClient,
    UnauthorizedError,
)
from tests.app.access.keys import key_file, make_key
from tests.app.bundles import export_small_bundle
from tests.app.models.bundles import write_models
from tests.app.processes import Service, served
from tests.app.serving import until
from tests.pru.client.script import PREDICTED, Script, refused, told

ALICE, BORIS, CLARA = (make_key(name) for name in ("alice", "boris", "clara"))
TEXT = "the harbour is"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A process that needs keys and serves a bundle by two names, of which `other` is not the default."""
    folder: Path = tmp_path_factory.mktemp("locked")
    bundle = export_small_bundle(folder).name
    write_models(folder / "models.toml", "first", first=bundle, other=bundle)
    keys = key_file(ALICE, BORIS, CLARA, boris={"routes": ["model"]}, clara={"requests_per_minute": 1})
    store = f"sqlite:///{folder}/sessions.db"
    with served(
        "-m", "app", models=str(folder / "models.toml"), keys=keys, session_store=store, threads="1"
    ) as service:
        until(lambda: bool(service.events("a model answers")))
        yield service


@pytest.mark.parametrize("api_key", [None, "qwertz", f"pru_{'x' * 43}"])
@pytest.mark.anyio
async def test_without_a_key_that_holds_it_is_an_error_of_its_own_that_does_not_name_it(
    locked: Service, api_key: str | None
) -> None:
    with PRUClient(locked.url, api_key=api_key) as client, pytest.raises(UnauthorizedError) as found:
        client.predict(TEXT)
    async with AsyncPRUClient(locked.url, api_key=api_key) as asynchronous:
        assert (await asynchronous.ready()).status == "ready"
        with pytest.raises(UnauthorizedError) as found_by_the_other:
            await asynchronous.session(TEXT)
    for error in (found.value, found_by_the_other.value):
        said = "".join(traceback.format_exception(error)) + repr(vars(error))
        assert api_key is None or api_key not in said


def test_a_key_is_for_every_call_and_comes_from_the_environment_where_none_is_given(
    locked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRU_API_KEY", ALICE.text)
    with PRUClient(locked.url) as client:
        with client.session(TEXT) as session, session.fork() as fork:
            assert len(list(fork.stream(max_tokens=3))) == 3
            assert session.append("small").position == 4
            moved = client.import_session(session.export())
        with PRUClient(locked.url, api_key=BORIS.text) as other, pytest.raises(ForbiddenError):
            other.attach(moved.id)
        moved.close()
    monkeypatch.setenv("PRU_API_KEY", "wrong")
    with PRUClient(locked.url, api_key=BORIS.text) as client:
        assert client.model().models == ["first", "other"]
        with pytest.raises(ForbiddenError, match="not for this route"):
            client.predict(TEXT)


@pytest.mark.anyio
async def test_the_model_that_is_named_answers(locked: Service) -> None:
    with PRUClient(locked.url, api_key=ALICE.text) as client:
        async with AsyncPRUClient(locked.url, api_key=ALICE.text) as asynchronous:
            for name, expected in ((None, "first"), ("first", "first"), ("other", "other")):
                assert client.predict(TEXT, model=name).model.name == expected
                assert (await asynchronous.predict(TEXT, model=name)).model.name == expected
                assert client.perplexity([TEXT], model=name).model.name == expected
                assert client.model(name).model.name == expected
                assert (await asynchronous.model(name)).model.name == expected
                assert client.tokenizer_info(model=name) == await asynchronous.tokenizer_info(model=name)
                assert client.detokenize(client.tokenize(TEXT, model=name), model=name) == TEXT


UNKNOWN: list[Callable[[PRUClient, str], object]] = [
    lambda client, name: client.predict(TEXT, model=name),
    lambda client, name: client.perplexity(TEXT, model=name),
    lambda client, name: client.tokenize(TEXT, model=name),
    lambda client, name: client.detokenize([0], model=name),
    lambda client, name: client.tokenizer_info(model=name),
    lambda client, name: client.model(name),
    lambda client, name: client.session(TEXT, model=name),
]


@pytest.mark.parametrize("ask", UNKNOWN)
@pytest.mark.parametrize("name", ["third", "", "a&b=c#d", "\N{SNOWMAN}"])
def test_a_model_that_is_not_there_is_told_from_a_session_that_is_not_there(
    locked: Service, ask: Callable[[PRUClient, str], object], name: str
) -> None:
    with PRUClient(locked.url, api_key=ALICE.text) as client:
        with pytest.raises(ModelNotFoundError, match="there is first, other"):
            ask(client, name)
        with pytest.raises(NotFoundError) as found:
            client.attach("nowhere")
        assert type(found.value) is NotFoundError


def test_a_name_that_no_address_can_hold_is_a_model_that_is_not_there(locked: Service) -> None:
    with PRUClient(locked.url, api_key=ALICE.text) as client, pytest.raises(ModelNotFoundError):
        client.model("\ud800")


def test_over_its_quota_a_key_hears_how_long_to_wait_and_waits_only_where_that_is_short(
    locked: Service, waits: list[float]
) -> None:
    with PRUClient(locked.url, api_key=CLARA.text) as client:
        client.predict(TEXT)
        with pytest.raises(OverloadedError, match="used up its requests") as found:
            client.predict(TEXT)
    assert waits == []
    assert found.value.retry_after is not None
    assert 30 < found.value.retry_after <= 60
    script = Script(refused(429, Retry_After="7"), told(PREDICTED))
    with script.client(api_key="k") as client:
        client.predict(TEXT)
    assert [request.headers["Authorization"] for request in script.requests] == ["Bearer k", "Bearer k"]
    assert len(waits) == 1
    assert 7 <= waits[0] <= 8


def test_credentials_of_ones_own_go_before_the_environment_and_never_beside_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRU_API_KEY", "of-the-environment")
    own = {"authorization": "Basic b3du"}
    sent = []

    def note(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get_list("Authorization"))
        return told(PREDICTED)

    transport = httpx2.MockTransport(note)
    with PRUClient("http://pru.test", headers=own, transport=transport) as client:
        client.predict(TEXT)
    with PRUClient("http://a:b@pru.test", transport=transport) as client:
        client.predict(TEXT)
    with PRUClient("http://pru.test", api_key="given", transport=transport) as client:
        client.predict(TEXT)
    assert sent == [["Basic b3du"], ["Basic YTpi"], ["Bearer given"]]
    assert own == {"authorization": "Basic b3du"}
    for url, headers in (("http://pru.test", own), ("http://a:b@pru.test", {})):
        with pytest.raises(ConfigurationError, match="one credential"):
            PRUClient(url, api_key="given", headers=headers)


@pytest.mark.parametrize("key", ["se cret", "secret\n", "secr\u00e9t", "\ud800secret", " "])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="PRU_API_KEY") as found:
        PRUClient("http://pru.test", api_key=key)
    assert not re.search("se ?cr", str(found.value))


def test_no_client_shows_its_key() -> None:
    for client in (PRUClient("http://pru.test", api_key="hidden"), AsyncPRUClient("http://pru.test", api_key="hidden")):
        connection = vars(client)["_connection"]
        shown = [repr(it) for it in (client, connection, connection._http, connection._http.headers)]
        assert "hidden" not in "".join(shown)
