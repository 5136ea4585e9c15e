"""The service from start to stop: probes, requests before and after, overload, clients that leave, logs of it all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.access.keyring import Keyring
from app.bodies import Bodies
from app.lifecycle import Lifecycle
from app.logs import make_logger
from app.main import create_app
from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.settings import LogLevel, Settings
from model.errors import BundleError, EngineError
from tests.app.fakes import Gate, LogLines, NumpyEngine, fake_model
from tests.app.serving import PATIENCE, make_app, ready, starting

pytestmark = pytest.mark.anyio


def gated(gate: Gate) -> Any:
    return fake_model(build=lambda size: NumpyEngine(size, before=gate))


async def test_probes_answer_while_the_engine_is_warming_up() -> None:
    gate = Gate()
    gate.shut()
    async with starting(make_app(gated(gate))) as client:
        await gate.wait_until_reached()
        assert (await client.get("/health/live")).json() == {"status": "live"}
        for refused in (
            await client.get("/health/ready"),
            await client.get("/model"),
            await client.post("/predict", json={"text": "the"}),
        ):
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert "loaded" in refused.json()["detail"]
        gate.open.set()
        await ready(client)
        assert (await client.get("/health/ready")).json()["status"] == "ready"
        assert (await client.post("/predict", json={"text": "the"})).status_code == 200


async def test_a_service_that_drains_refuses_what_is_new_and_finishes_what_it_has() -> None:
    gate = Gate()
    app = make_app(gated(gate))
    async with starting(app) as client:
        await ready(client)
        gate.shut()
        running = asyncio.create_task(client.post("/predict", json={"text": "the"}))
        await gate.wait_until_reached()
        app.state.lifecycle.draining = True
        refused = await client.post("/predict", json={"text": "the"})
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert "stopping" in refused.json()["detail"]
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        gate.open.set()
        assert (await running).status_code == 200


async def test_an_engine_that_cannot_be_built_leaves_the_service_not_ready() -> None:
    def fail(_: int) -> NumpyEngine:
        raise EngineError("no such precision")

    logs = LogLines()
    app = make_app(fake_model(build=fail), logs)
    async with starting(app) as client:
        async with asyncio.timeout(PATIENCE):
            while app.state.lifecycle.failure is None:
                await asyncio.sleep(0.005)
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert "the service has failed" in response.json()["detail"]
    [line] = logs.events("the engine could not be started")
    assert line["error"] == "EngineError"


async def test_an_engine_that_dies_fails_what_waits_and_turns_ready_red() -> None:
    logs = LogLines()
    app = make_app(logs=logs)
    async with starting(app) as client:
        await ready(client)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.scheduler.Scheduler._next_batch", lambda *_: 1 / 0)
            answers = await asyncio.gather(*(client.post("/predict", json={"text": "the"}) for _ in range(3)))
        assert {answer.status_code for answer in answers} <= {500, 503}
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post("/predict", json={"text": "the"})).status_code == 503
    [line] = logs.events("the engine died")
    assert line["error"] == "ZeroDivisionError"


async def test_a_task_of_the_service_that_dies_turns_ready_red_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Keyring, "watch", die)
    logs = LogLines()
    app = make_app(logs=logs)
    async with starting(app) as client:
        async with asyncio.timeout(PATIENCE):
            while app.state.lifecycle.failure is None:
                await asyncio.sleep(0.005)
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post("/predict", json={"text": "the"})).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
    [line] = logs.events("a task of the service died")
    assert (line["level"], line["error"]) == ("error", "ZeroDivisionError")


async def test_a_broken_bundle_stops_the_start(tmp_path: Path) -> None:
    app = create_app(Settings(bundle=tmp_path), logger=make_logger(LogLevel.INFO, LogLines()))
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        async with starting(app):
            pass


async def test_too_many_waiting_requests_are_429_and_say_when_to_come_back() -> None:
    gate = Gate()
    async with starting(make_app(gated(gate), queue_limit=1)) as client:
        await ready(client)
        gate.shut()
        ask = {"text": "the"}
        running = asyncio.create_task(client.post("/predict", json=ask))
        await gate.wait_until_reached()
        others = [asyncio.create_task(client.post("/predict", json=ask)) for _ in range(5)]
        async with asyncio.timeout(PATIENCE):
            while sum(task.done() for task in others) < 4:
                await asyncio.sleep(0.005)
        gate.open.set()
        statuses = sorted([(await task).status_code for task in others])
        assert statuses == [200, 429, 429, 429, 429]
        assert (await running).status_code == 200
        refused = next(task.result() for task in others if task.result().status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["title"] == "Too Many Requests"


async def test_a_request_past_the_deadline_is_504() -> None:
    gate = Gate()
    async with starting(make_app(gated(gate), deadline_seconds=0.05)) as client:
        await ready(client)
        gate.shut()
        response = await client.post("/predict", json={"text": "the"})
        gate.open.set()
        assert response.status_code == 504
        assert "0.05 seconds" in response.json()["detail"]


async def test_an_engine_that_fails_is_a_500_that_tells_nothing_and_the_service_goes_on() -> None:
    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size))
        return engines[0]

    def fail() -> None:
        raise RuntimeError("secret")

    logs = LogLines()
    async with starting(make_app(fake_model(build=build), logs)) as client:
        await ready(client)
        engines[0].before = fail
        response = await client.post("/predict", json={"text": "the"})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert "secret" not in response.text
        engines[0].before = None
        assert (await client.post("/predict", json={"text": "the"})).status_code == 200
    [line] = logs.events("failed")
    assert line["request_id"] == response.json()["request_id"]
    assert line["error"] == "RuntimeError"
    assert line["raised_at"][-1].endswith(" fail")
    assert "secret" not in logs.getvalue()


async def test_a_client_that_leaves_takes_its_waiting_request_with_it() -> None:
    gate = Gate()
    logs = LogLines()
    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size, before=gate))
        return engines[0]

    app = make_app(fake_model(build=build), logs)
    async with starting(app) as client:
        await ready(client)
        engines[0].calls.clear()
        gate.shut()
        running = asyncio.create_task(client.post("/predict", json={"text": "the"}))
        await gate.wait_until_reached()

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        messages = [{"type": "http.request", "body": b'{"text": "the captain left"}', "more_body": False}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "raw_path": b"/predict",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"x-request-id", b"left")],
        }
        await app(scope, receive, send)
        gate.open.set()
        assert (await running).status_code == 200
        assert (await client.post("/predict", json={"text": "boats"})).status_code == 200
    assert engines[0].calls == [(1, 1), (1, 1)]
    assert {"left": 499}.items() <= {line["request_id"]: line["status"] for line in logs.events("request")}.items()


async def test_the_event_loop_is_free_while_the_engine_works() -> None:
    gate = Gate()
    async with starting(make_app(gated(gate))) as client:
        await ready(client)
        gate.shut()
        running = asyncio.create_task(client.post("/perplexity", json={"text": "the " * 100}))
        await gate.wait_until_reached()
        for _ in range(20):
            assert (await client.get("/health/live")).status_code == 200
        assert not running.done()
        gate.open.set()
        assert (await running).status_code == 200


async def test_the_card_shows_the_model_and_the_limits_in_force() -> None:
    app = make_app(
        max_body_bytes=1000, max_texts=7, max_tokens=99, queue_limit=5, queue_tokens=1234, deadline_seconds=2.5
    )
    async with starting(app) as client:
        await ready(client)
        card = (await client.get("/model")).json()
    assert card["limits"] == {
        "body_bytes": 1000,
        "texts": 7,
        "tokens": 99,
        "k": 100,
        "waiting_requests": 5,
        "waiting_tokens": 1234,
        "deadline_seconds": 2.5,
    }
    assert card["convention"] == "wikitext"
    assert card["vocabulary_size"] == card["architecture"]["vocabulary_size"]
    assert card["metrics"] == [{"data": "none", "precision": "float32", "perplexity": 1.5, "tokens": 2}]
    assert card["licence"] == "MIT"
    assert card["attribution"] is None
    assert (card["intended_use"], card["limitations"]) == ("tests", None)


async def test_answers_do_not_depend_on_what_is_asked_beside_them() -> None:
    async with starting(make_app()) as client:
        await ready(client)
        texts = ["the harbour", "", "a captain 's boat", "the", "red is left"] * 4

        async def ask(text: str) -> httpx2.Response:
            return await client.post("/predict", json={"text": text, "k": 7})

        alone = [(await ask(text)).json() for text in texts]
        together = [response.json() for response in await asyncio.gather(*map(ask, texts))]
        assert together == alone


async def test_a_task_whose_client_left_is_cancelled_no_more_once_its_request_has_ended() -> None:
    async def wait(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        await asyncio.Event().wait()

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there to be answered")

    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    logs = LogLines()
    middleware = RequestMiddleware(
        wait,
        lifecycle=Lifecycle(),
        logger=make_logger(LogLevel.INFO, logs),
        metrics=Metrics(),
        max_body_bytes=1,
        bodies=Bodies(1),
        deadline_seconds=PATIENCE,
    )
    await middleware({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive, send)
    [line] = logs.events("request")
    assert line["status"] == 499
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
