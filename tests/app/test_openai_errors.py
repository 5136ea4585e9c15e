"""Errors under `/v1`: OpenAI's shape whoever found them, and problem documents everywhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError

from app.openai_schemas import CompletionRequest, DetokenizeRequest
from tests.app.fakes import Gate, LogLines, NumpyEngine, fake_model
from tests.app.serving import make_app, serving

PATH = "/v1/completions"
JSON = {"Content-Type": "application/json"}


def error(response: Any, status: int, kind: str = "invalid_request_error") -> dict[str, Any]:
    """The error of a refusal, checked for what every one of them must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["x-request-id"]
    document: dict[str, Any] = response.json()
    assert document.keys() == {"error"}
    found: dict[str, Any] = document["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    assert found["message"]
    assert found["type"] == kind
    return found


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], 2]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"prompt": [57]}, "prompt"),
        ({"prompt": [[0], [57]]}, "prompt"),
        ({"model": 5}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 4097}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 5.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"ignore_eos": 0}, "ignore_eos"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"seed": -1}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 5}, "stop"),
        ({"echo": 1}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"logit_bias": {"5": -100}}, "logit_bias"),
        ({"suffix": "the end"}, "suffix"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
    ],
)
def test_a_wrong_field_is_named(client: TestClient, fields: dict[str, Any], param: str) -> None:
    found = error(client.post(PATH, json={"prompt": "the", **fields}), 400)
    assert (found["param"], found["code"]) == (param, None)
    assert found["message"].startswith(f"{param}: ")


def test_what_is_no_object_or_no_json_is_a_bad_request(client: TestClient) -> None:
    for body in (b"[]", b"null", b"{", b'{"prompt": "\xff"}'):
        assert error(client.post(PATH, content=body, headers=JSON), 400)["param"] is None
    assert error(client.post(PATH, content=b'{"prompt": "a\\ud800"}', headers=JSON), 400)["param"] == "prompt"


def test_other_types_paths_and_methods_are_refused_in_the_same_shape(client: TestClient) -> None:
    error(client.post(PATH, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    for path in ("/v1", "/v1/nowhere", "/v1/chat/completions"):
        assert error(client.get(path), 404)["code"] is None
    assert "/docs" in error(client.get("/v1/nowhere"), 404)["message"]
    chat = error(client.post("/v1/chat/completions", json={"messages": []}), 404)["message"]
    assert chat == "there is no chat model here: send the text that is to be continued to /v1/completions"
    response = client.get(PATH)
    error(response, 405)
    assert response.headers["allow"] == "POST"
    error(client.post("/v1/models", json={}), 405)


def test_errors_elsewhere_stay_problem_documents(client: TestClient) -> None:
    for path in ("/v10", "/nowhere", "/v1x/completions"):
        response = client.get(path)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == 404


def test_limits_of_the_settings_are_refused() -> None:
    with serving(max_texts=4, max_tokens=10, max_body_bytes=1000) as client:
        assert client.post(PATH, json={"prompt": ["the"] * 2, "n": 2, "max_tokens": 2}).status_code == 200
        assert error(client.post(PATH, json={"prompt": ["the"] * 3, "n": 2, "max_tokens": 0}), 400)["param"] == "prompt"
        assert client.post(PATH, json={"prompt": "the sea", "max_tokens": 8}).status_code == 200
        found = error(client.post(PATH, json={"prompt": "the sea", "max_tokens": 9}), 400)
        assert found["param"] == "max_tokens"
        echo = {"prompt": "the sea is small", "max_tokens": 0, "echo": True}
        assert client.post(PATH, json={**echo, "n": 2}).status_code == 200
        assert error(client.post(PATH, json={**echo, "n": 3}), 400)["param"] == "max_tokens"
        for prompt in ("the " * 11, [1] * 11, [[1] * 6, [1] * 5]):
            assert error(client.post(PATH, json={"prompt": prompt, "max_tokens": 0}), 400)["param"] == "prompt"
        error(client.post(PATH, json={"prompt": "a" * 2000}), 413)


def test_a_service_that_cannot_answer_says_so_and_when_to_come_again() -> None:
    gate = Gate()
    gate.shut()
    app = make_app(fake_model(build=lambda size: NumpyEngine(size, before=gate)))
    with TestClient(app) as client:
        try:
            for response in (client.post(PATH, json={"prompt": "the"}), client.get("/v1/models")):
                error(response, 503, "server_error")
                assert response.headers["retry-after"] == "1"
        finally:
            gate.open.set()
    app = make_app()
    with TestClient(app) as client:
        app.state.lifecycle.draining = True
        response = client.post(PATH, json={"prompt": "the"})
        error(response, 503, "server_error")
        assert response.headers["connection"] == "close"
    with serving(deadline_seconds=1e-9) as client:
        error(client.post(PATH, json={"prompt": "the"}), 504, "server_error")


def test_a_full_queue_is_a_rate_limit() -> None:
    with serving(queue_limit=0) as client:
        admission = client.app.state.lifecycle.models.default.completions._admission  # type: ignore[attr-defined]
        admission._inside = 1
        response = client.post(PATH, json={"prompt": "the"})
        error(response, 429, "rate_limit_error")
        assert response.headers["retry-after"] == "1"


def test_a_failure_of_the_service_is_told_without_its_message() -> None:
    def fail() -> None:
        raise MemoryError("the harbour")

    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(NumpyEngine(size))
        return engines[0]

    logs = LogLines()
    with serving(fake_model(build=build), logs) as client:
        engines[0].before = fail
        response = client.post(PATH, json={"prompt": ["the harbour", "a"], "n": 2})
        found = error(response, 500, "server_error")
        assert response.headers["x-request-id"] in found["message"]
        assert "harbour" not in json.dumps(found) + logs.getvalue()


@pytest.mark.parametrize(
    ("request_type", "fields"),
    [
        (CompletionRequest, {"prompt": [-1] * 1000}),
        (CompletionRequest, {"prompt": [[1], [-1] * 1000, [-1]]}),
        (CompletionRequest, {"prompt": ["the", *[1] * 1000]}),
        (DetokenizeRequest, {"tokens": [-1] * 1000}),
    ],
)
def test_of_a_list_of_a_thousand_wrong_items_one_error_is_made(
    request_type: type[BaseModel], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        request_type.model_validate(fields)
    assert caught.value.error_count() == 1
