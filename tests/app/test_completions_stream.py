"""`POST /v1/completions` as a stream: the same answer in pieces, its end, and what happens when it breaks off."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import LogLines, NumpyEngine, fake_model
from tests.app.processes import served_slowly
from tests.app.serving import PATIENCE, serving, until
from tests.app.talking import close_to

PATH = "/v1/completions"


def chunks(client: TestClient, **fields: Any) -> tuple[list[dict[str, Any]], bool]:
    """The chunks of a stream, and whether it ended as a whole one does."""
    response = client.post(PATH, json={"stream": True, **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last = [block.removeprefix("data: ") for block in response.text.strip().split("\n\n")]
    done = last == "[DONE]"
    return [json.loads(event) for event in (events if done else [*events, last])], done


def joined(found: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices whose pieces these chunks hold, by index."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in found:
        for piece in chunk["choices"]:
            choice = choices.setdefault(piece["index"], {"text": "", "finish_reason": None, "logprobs": {}})
            assert choice["finish_reason"] is None
            choice["text"] += piece["text"]
            choice["finish_reason"] = piece["finish_reason"]
            for name, column in (piece["logprobs"] or {}).items():
                choice["logprobs"].setdefault(name, []).extend(column)
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "the harbour", "max_tokens": 12, "seed": 3},
        {"prompt": "the harbour", "max_tokens": 12, "seed": 3, "logprobs": 2, "echo": True},
        {"prompt": ["the harbour", "a"], "n": 3, "max_tokens": 20, "seed": 4, "logprobs": 0},
        {"prompt": "the harbour", "max_tokens": 30, "seed": 3, "stop": [" the", "e"], "logprobs": 1},
        {"prompt": "the harbour", "max_tokens": 0, "echo": True},
        {"prompt": "the harbour", "max_tokens": 0},
    ],
)
def test_a_stream_is_the_answer_in_pieces(client: TestClient, fields: dict[str, Any]) -> None:
    whole = client.post(PATH, json=fields).json()
    found, done = chunks(client, stream_options={"include_usage": True}, **fields)
    assert done
    choices = joined(found)
    assert sorted(choices) == [choice["index"] for choice in whole["choices"]]
    for choice in whole["choices"]:
        piece = choices[choice["index"]]
        assert (piece["text"], piece["finish_reason"]) == (choice["text"], choice["finish_reason"])
        close_to(piece["logprobs"], choice["logprobs"] or {})
    *pieces, last = found
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {(chunk["usage"], len(chunk["choices"])) for chunk in pieces} == {(None, 1)}
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in found}) == 1
    assert found[0]["object"] == "text_completion"


def test_the_usage_comes_only_where_asked_for(client: TestClient) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        found, done = chunks(client, prompt="the", max_tokens=3, temperature=0, **options)
        assert done
        assert all(chunk["usage"] is None and chunk["choices"] for chunk in found)


def test_what_can_be_refused_is_refused_before_a_stream_begins(client: TestClient) -> None:
    for fields, status in (({"model": "gpt-4"}, 404), ({"prompt": [10**6]}, 400)):
        response = client.post(PATH, json={"prompt": "the", "stream": True, **fields})
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"


def test_a_stream_that_fails_on_the_way_ends_with_an_error_and_nothing_else() -> None:
    engines: list[NumpyEngine] = []
    logs = LogLines()

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size))
        return engines[0]

    steps = 0

    def fail_at_the_fourth() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise MemoryError

    with serving(fake_model(build=build), logs) as client:
        engines[0].before = fail_at_the_fourth
        found, done = chunks(client, prompt="the", max_tokens=9, temperature=0)
        assert not done
        *pieces, last = found
        assert pieces
        assert all(chunk["choices"] for chunk in pieces)
        assert last.keys() == {"error"}
        assert last["error"]["type"] == "server_error"
        [failed] = logs.events("failed")
        assert (failed["error"], failed["route"]) == ("MemoryError", PATH)
        assert failed["request_id"] in last["error"]["message"]
        assert client.app.state.lifecycle.models.default.completions._admission.inside == 0  # type: ignore[attr-defined]


def test_a_client_that_leaves_takes_its_choices_with_it() -> None:
    with served_slowly(0.02) as service:
        service.wait_until_ready()
        fields = {"prompt": "the", "n": 4, "max_tokens": 4000, "temperature": 0, "stream": True}
        with httpx2.stream("POST", service.url + PATH, json=fields, timeout=PATIENCE) as response:
            next(response.iter_lines())
        until(lambda: any(line["route"] == PATH for line in service.events("request")))
        called = len(service.said)
        time.sleep(0.5)
        # The call that was running, and not the twenty more of words that nobody waits for.
        assert len(service.said) - called <= 1
