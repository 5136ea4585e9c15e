"""The file changes under a running service: what is new answers once it is ready, and what fails changes nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import weakref
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from model.bundle import Bundle, open_bundle
from tests.app.fakes import Gate, LogLines, NumpyEngine
from tests.app.models.bundles import HILLS, SEA, House, SeededEngine, answering, likeliest, load, shown
from tests.app.numbers import number
from tests.app.serving import PATIENCE, ready, starting, until
from tests.app.talking import append, create, post


def test_the_default_moves_to_a_new_version_and_sessions_stay_on_the_old_one(house: House) -> None:
    old, new = open_bundle(house.folder / "sea").sha256, house.bundle("sea-2", HILLS)
    with house.serving() as client:
        session = create(client, "the boats")
        house.name("sea", sea="sea-2", hills="hills")
        until(lambda: answering(client) == new)
        assert shown(post(client, "/predict", text="the paths")) == likeliest(house.folder / "sea-2", "the paths")
        answer = append(client, session, "that")
        assert answer["model"]["sha256"] == old
        assert shown(answer) == likeliest(house.folder / "sea", "the boats that")
        assert append(client, create(client, "the"), "")["model"]["sha256"] == new
        # Kept for the session alone, over many looks at what is retired.
        looks = client.app.state.lifecycle.models  # type: ignore[attr-defined]
        for _ in range(5):
            client.get("/health/live")
            until_looked(house)
            assert [model.identity.sha256 for model in looks.now.retired] == [old]
        assert append(client, session, "leave")["model"]["sha256"] == old
        client.delete(f"/sessions/{session}")
        until(lambda: not looks.now.retired)
        until(lambda: bool(house.logs.events("a model was freed")))  # Said once it is closed.
        assert [line["sha256"] for line in house.logs.events("a model was freed")] == [old]


def until_looked(house: House) -> None:
    """Wait until the store was asked once more whether a bundle is needed."""
    asked = house.store.asked
    until(lambda: house.store.asked > asked)


def test_a_session_that_expires_lets_its_bundle_go(house: House) -> None:
    house.bundle("sea-2", version=2)
    with house.serving() as client:
        create(client, "the boats", ttl=1000)
        house.name("sea", sea="sea-2")
        until(lambda: bool(house.logs.events("a model is retired")))
        until_looked(house)
        assert not [line for line in house.logs.events("a model was freed") if line["name"] == "sea"]
        now = house.store.now
        house.store.now = lambda: now() + 1001
        until(lambda: {line["name"] for line in house.logs.events("a model was freed")} == {"sea", "hills"})


def test_sessions_go_on_when_the_server_starts_again_with_the_same_file(house: House) -> None:
    with house.serving() as client:
        sessions = {name: create(client, "the", model=name) for name in ("sea", "hills")}
    with house.serving() as client:
        for name, session in sessions.items():
            answer = append(client, session, "leave" if name == "sea" else "paths")
            assert answer["model"]["name"] == name
            text = "the leave" if name == "sea" else "the paths"
            assert shown(answer) == likeliest(house.folder / name, text)


def test_a_name_that_is_gone_is_not_answered_while_its_sessions_go_on(house: House) -> None:
    with house.serving() as client:
        post(client, "/predict", text="the paths", model="hills")
        assert number(client, "pru_prefix_cache_bytes", model="hills") > 0
        session = create(client, "the", model="hills")
        house.name("sea", sea="sea")
        until(lambda: client.get("/model").json()["models"] == ["sea"])
        for path, field in (("/predict", "text"), ("/sessions", "text"), ("/tokenize", "prompt")):
            post(client, path, 404, **{field: "the", "model": "hills"})
        assert shown(append(client, session, "paths")) == likeliest(house.folder / "hills", "the paths")
        client.delete(f"/sessions/{session}")
        until(lambda: bool(house.logs.events("a model was freed")))
        labels = {"name": "hills", "sha256": open_bundle(house.folder / "hills").sha256}
        assert number(client, "pru_model_info", **labels, engine="numpy", precision="float32") == 0
        assert number(client, "pru_prefix_cache_bytes", model="hills") == 0


def test_a_model_that_is_used_while_the_store_is_asked_for_its_sessions_is_kept_until_it_is_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, holds = 0, house.store.holds

    async def used_meanwhile(sha256: str) -> bool:
        nonlocal asked
        asked += 1
        if asked < 3:
            with hills:  # As by a request that made a session of it, after the store had looked.
                await asyncio.sleep(0)
        return await holds(sha256)

    with house.serving() as client:
        hills = client.app.state.lifecycle.models.named("hills")  # type: ignore[attr-defined]
        monkeypatch.setattr(house.store, "holds", used_meanwhile)
        house.name("sea", sea="sea")
        until(lambda: bool(house.logs.events("a model was freed")))
        assert asked == 3


def test_an_engine_is_free_with_its_model_and_its_words_soon_after(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []

    def remember(bundle: Bundle, *_: Any) -> NumpyEngine:
        engine = load(bundle)
        alive.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr("app.engines.load_engine", remember)
    with house.serving() as client:
        post(client, "/predict", text="the paths", model="hills")
        create(client, "the", model="hills", ttl=1)
        words = weakref.ref(client.app.state.lifecycle.models.named("hills").service.vocabulary)  # type: ignore[attr-defined]
        gc.collect()
        gc.disable()  # An engine's memory is not to wait for Python to look for it.
        try:
            house.name("sea", sea="sea")
            until(lambda: bool(house.logs.events("a model was freed")))
            until(lambda: [ref() is None for ref in alive] == [False, True])
        finally:
            gc.enable()
        gc.collect()
        assert words() is None


def test_only_the_default_changes_where_the_bundles_stay(house: House) -> None:
    with house.serving() as client:
        before = {model.identity.name: model for model in client.app.state.lifecycle.models.now.named.values()}  # type: ignore[attr-defined]
        house.name("hills", sea="sea", hills="hills")
        until(lambda: client.get("/model").json()["models"] == ["hills", "sea"])
        assert client.get("/health/ready").json()["model"]["name"] == "hills"
        after = client.app.state.lifecycle.models.now.named  # type: ignore[attr-defined]
        assert {name: after[name] is model for name, model in before.items()} == {"sea": True, "hills": True}
        assert not house.logs.events("a model is retired")


def test_two_names_may_change_places(house: House) -> None:
    sums = {name: open_bundle(house.folder / name).sha256 for name in ("sea", "hills")}
    with house.serving() as client:
        session = create(client, "the boats", model="sea")
        house.name("sea", sea="hills", hills="sea")
        until(lambda: post(client, "/predict", text="the", model="hills")["model"]["sha256"] == sums["sea"])
        assert answering(client) == sums["hills"]
        answer = append(client, session, "that")
        assert answer["model"] == {"name": "hills", "sha256": sums["sea"], "engine": "numpy", "precision": "float32"}


async def ask_until(stop: asyncio.Event, client: httpx2.AsyncClient, answers: list[dict[str, Any]]) -> None:
    while not stop.is_set():
        response = await client.post("/predict", json={"text": "the small wide boats", "k": 3})
        assert response.status_code == 200, response.text
        answers.append(response.json())


@pytest.mark.anyio
async def test_every_answer_under_load_is_entirely_of_one_bundle_while_the_default_swaps(house: House) -> None:
    versions = {
        house.bundle(f"v{version}", SEA if version % 2 else HILLS, version): f"v{version}" for version in range(4)
    }
    house.name("m", m="v0")
    expected = {sha: likeliest(house.folder / name, "the small wide boats", 3) for sha, name in versions.items()}
    answers: list[dict[str, Any]] = []
    stop = asyncio.Event()
    async with starting(house.app()) as client, asyncio.TaskGroup() as group:
        await ready(client)
        for _ in range(32):
            group.create_task(ask_until(stop, client, answers))
        for sha, name in [*versions.items(), *versions.items()]:
            house.name("m", m=name)
            async with asyncio.timeout(PATIENCE):
                while not answers or answers[-1]["model"]["sha256"] != sha:
                    await asyncio.sleep(0.005)
        stop.set()
    assert {answer["model"]["sha256"] for answer in answers} == expected.keys()
    for answer in answers:
        assert shown(answer) == expected[answer["model"]["sha256"]]
    assert not house.troubles()
    assert not house.logs.events("failed")


@pytest.mark.anyio
async def test_what_runs_on_a_model_that_is_retired_is_finished_before_it_is_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = {open_bundle(house.folder / name).sha256: Gate() for name in ("sea", "hills")}
    monkeypatch.setattr("app.engines.load_engine", lambda bundle, *_: SeededEngine(bundle, before=gates[bundle.sha256]))
    gate = gates[open_bundle(house.folder / "hills").sha256]
    async with starting(house.app()) as client:
        await ready(client)
        async with asyncio.timeout(PATIENCE):
            while (await client.get("/v1/models/hills")).status_code != 200:
                await asyncio.sleep(0.005)
        gate.shut()
        asked = [
            asyncio.create_task(client.post(path, json=fields))
            for path, fields in (
                ("/predict", {"text": "the paths", "model": "hills"}),
                ("/perplexity", {"text": "the paths", "model": "hills"}),
                ("/sessions", {"text": "the", "model": "hills"}),
                ("/v1/completions", {"prompt": "the", "model": "hills", "max_tokens": 3, "stream": True}),
            )
        ]
        await gate.wait_until_reached()
        house.name("sea", sea="sea")
        async with asyncio.timeout(PATIENCE):
            while not house.logs.events("a model is retired"):
                await asyncio.sleep(0.005)
        assert (await client.post("/predict", json={"text": "the", "model": "hills"})).status_code == 404
        assert (await client.post("/predict", json={"text": "the"})).json()["model"]["name"] == "sea"
        await asyncio.sleep(0.3)
        assert not house.logs.events("a model was freed")
        gate.open.set()
        responses = [await task for task in asked]
        assert [response.status_code for response in responses] == [200, 200, 201, 200]
        assert shown(responses[0].json()) == likeliest(house.folder / "hills", "the paths")
        assert responses[3].text.rstrip().endswith("data: [DONE]")
        session = responses[2].json()["session_id"]
        answer = (await client.post(f"/sessions/{session}/append", json={"text": "paths"})).json()
        assert shown(answer) == likeliest(house.folder / "hills", "the paths")


def test_a_bundle_that_is_replaced_in_its_place_is_seen_when_the_file_is_read_again(house: House) -> None:
    with house.serving() as client:
        shutil.rmtree(house.folder / "sea")
        new = house.bundle("sea", HILLS, 2)
        os.utime(house.file)
        until(lambda: answering(client) == new)


def test_a_name_answers_503_while_its_bundle_is_loaded_and_then_answers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    new = house.bundle("new", HILLS, 2)

    def wait(bundle: Bundle, *_: Any) -> NumpyEngine:
        if bundle.sha256 == new:
            gate()
        return load(bundle)

    monkeypatch.setattr("app.engines.load_engine", wait)
    with house.serving() as client:
        gate.shut()
        house.name("sea", sea="sea", hills="hills", new="new")
        assert gate.reached.wait(PATIENCE)
        response = client.post("/predict", json={"text": "the", "model": "new"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert post(client, "/predict", 404, text="the", model="mountains")
        assert client.get("/model").json()["models"] == ["sea", "hills"]
        gate.open.set()
        until(lambda: client.post("/predict", json={"text": "the", "model": "new"}).status_code == 200)


def test_a_service_that_stops_while_a_model_is_loaded_ends_its_engine(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, built = Gate(), []

    def wait(bundle: Bundle, *_: Any) -> NumpyEngine:
        if open_bundle(house.folder / "hills").sha256 == bundle.sha256:
            gate()
        built.append(bundle.sha256)
        return load(bundle)

    monkeypatch.setattr("app.engines.load_engine", wait)
    gate.shut()
    with TestClient(house.app()) as client:
        until(lambda: client.get("/health/ready").status_code == 200)
        assert gate.reached.wait(PATIENCE)
        # The default is ready, and so is the service.
        assert shown(post(client, "/predict", text="the boats")) == likeliest(house.folder / "sea", "the boats")
        gate.open.set()
    assert len(built) == 2
    assert not house.troubles()


def test_no_word_of_a_request_reaches_the_log_by_its_model(house: House) -> None:
    with house.serving() as client:
        post(client, "/predict", 404, text="the", model="quetzalcoatl")
        client.get("/model", params={"model": "quetzalcoatl"})
    assert isinstance(house.logs, LogLines)
    assert "quetzalcoatl" not in house.logs.getvalue()
