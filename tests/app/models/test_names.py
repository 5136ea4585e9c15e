"""Two bundles of different words answer by their names, over every route and the WebSocket."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from model.bundle import open_bundle
from tests.app.models.bundles import House, likeliest, shown
from tests.app.numbers import number
from tests.app.talking import post

TEXT = {"sea": "the boats", "hills": "the paths"}
"""Texts that each bundle knows."""


def sha256(house: House, name: str) -> str:
    return open_bundle(house.folder / name).sha256


def test_each_name_is_answered_by_its_bundle_and_no_name_by_the_default(house: House) -> None:
    with house.serving() as client:
        for name in ("hills", "sea", None):
            named: dict[str, Any] = {} if name is None else {"model": name}
            which = name or "sea"
            for text in TEXT.values():
                answer = post(client, "/predict", text=text, **named)
                assert (answer["model"]["name"], answer["model"]["sha256"]) == (which, sha256(house, which))
                assert shown(answer) == likeliest(house.folder / which, text)


def test_scores_are_those_of_the_named_bundle(house: House) -> None:
    with house.serving() as client:
        for name, text in TEXT.items():
            answer = post(client, "/perplexity", text=text, include_eos=False, model=name)
            other = post(client, "/perplexity", text=text, include_eos=False, model=({*TEXT} - {name}).pop())
            expected = dict(likeliest(house.folder / name, "", 50))["the"]
            words = post(client, "/perplexity", text="the", include_eos=False, model=name)
            assert words["total"]["log_likelihood"] == expected
            assert (answer["total"]["oov_count"], other["total"]["oov_count"]) == (0, 1)
            assert answer["model"]["sha256"] == sha256(house, name)


def test_completions_and_the_list_of_models_know_every_name(house: House) -> None:
    with house.serving() as client:
        assert [it["id"] for it in client.get("/v1/models").json()["data"]] == ["sea", "hills"]
        assert client.get("/v1/models/hills").json()["id"] == "hills"
        for name, text in TEXT.items():
            fields: dict[str, Any] = {"model": name, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
            answer = post(client, "/v1/completions", **fields)
            assert answer["model"] == name
            assert sha256(house, name)[:12] in answer["system_fingerprint"]
            expected = dict(likeliest(house.folder / name, "", 50))["the"]
            assert answer["choices"][0]["logprobs"]["token_logprobs"][0] == expected
            with client.stream("POST", "/v1/completions", json={**fields, "stream": True}) as response:
                assert f'"model":"{name}"' in next(line for line in response.iter_lines() if line)


def test_ids_are_those_of_the_named_vocabulary(house: House) -> None:
    with house.serving() as client:
        for name, text in TEXT.items():
            vocabulary = open_bundle(house.folder / name).vocabulary()
            tokens = post(client, "/tokenize", prompt=text, model=name)["tokens"]
            assert tokens == vocabulary.tokenise(text).ids.tolist()
            assert post(client, "/detokenize", tokens=tokens, model=name)["prompt"].strip() == text
            info = client.get("/tokenizer_info", params={"model": name}).json()
            assert info["vocab_size"] == len(vocabulary)
            card = client.get("/model", params={"model": name}).json()
            assert card["model"]["sha256"] == sha256(house, name)
            assert card["vocabulary_size"] == len(vocabulary)
            assert (card["models"], card["trouble"]) == (["sea", "hills"], None)
        assert client.get("/model").json()["model"]["name"] == "sea"


def test_a_session_is_its_bundles_on_every_route_and_over_the_websocket(house: House) -> None:
    with house.serving() as client:
        for name, text in TEXT.items():
            session = post(client, "/sessions", 201, text="the", model=name)["session_id"]
            expected = {"name": name, "sha256": sha256(house, name), "engine": "numpy", "precision": "float32"}
            assert client.get(f"/sessions/{session}").json()["model"] == expected
            answer = post(client, f"/sessions/{session}/append", text=text.split()[1])
            assert (answer["model"], shown(answer)) == (expected, likeliest(house.folder / name, text))
            fork = post(client, f"/sessions/{session}/fork", 201)
            assert fork["model"] == expected
            assert post(client, f"/sessions/{session}/rewind", position=1)["model"] == expected
            written = post(client, f"/sessions/{session}/continue", max_tokens=3, seed=1)
            assert written["model"] == expected
            known = open_bundle(house.folder / name).vocabulary()
            assert {token["token"] for token in written["tokens"]} <= set(known.words)
            blob = client.get(f"/sessions/{fork['session_id']}/export").content
            moved = client.post("/sessions/import", content=blob, headers={"Content-Type": "application/octet-stream"})
            assert (moved.status_code, moved.json()["model"]) == (201, expected)
            with client.websocket_connect(f"/sessions/{moved.json()['session_id']}/stream") as socket:
                socket.send_json({"id": 1, "type": "append", "text": ""})
                frame = socket.receive_json()
            assert (frame["model"], shown(frame)) == (expected, likeliest(house.folder / name, text))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/predict", {"text": "the"}),
        ("/perplexity", {"text": "the"}),
        ("/sessions", {"text": "the"}),
        ("/tokenize", {"prompt": "the"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_an_unknown_name_is_a_404_that_lists_the_names(house: House, path: str, fields: dict[str, Any]) -> None:
    with house.serving() as client:
        for name in ("mountains", "", "SEA", "../sea"):
            problem = post(client, path, 404, **fields, model=name)
            assert problem["detail"] == "there is no such model; there is sea, hills"
            assert problem["errors"] == [{"pointer": "#/model", "detail": problem["detail"]}]


def test_an_unknown_name_is_an_error_of_openais_under_v1_and_of_queries(house: House) -> None:
    with house.serving() as client:
        for response in (
            client.post("/v1/completions", json={"model": "mountains", "prompt": "the"}),
            client.get("/v1/models/mountains"),
        ):
            assert response.status_code == 404
            assert response.json()["error"] == {
                "message": "model: there is no such model; there is sea, hills",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        for path in ("/model", "/tokenizer_info"):
            assert client.get(path, params={"model": "mountains"}).status_code == 404


def test_prefixes_that_one_model_remembers_are_not_anothers(house: House) -> None:
    with house.serving() as client:
        for _ in range(2):
            for name in TEXT:
                answer = post(client, "/predict", text="the", model=name)
                assert shown(answer) == likeliest(house.folder / name, "the")


def test_numbers_are_each_models_own(house: House) -> None:
    with house.serving() as client:

        def read(name: str) -> float:
            return number(client, "pru_tokens_read_total", model=name)

        before = {name: read(name) for name in TEXT}
        post(client, "/predict", text="the paths lead over", model="hills")
        assert read("hills") - before["hills"] == 4
        assert read("sea") == before["sea"]
        for name in TEXT:
            labels = {"name": name, "sha256": sha256(house, name), "engine": "numpy", "precision": "float32"}
            assert number(client, "pru_model_info", **labels) == 1
        assert number(client, "pru_models_broken") == 0
        for name in ("quetzalcoatl", "sea2"):
            post(client, "/predict", 404, text="the", model=name)
        assert "quetzalcoatl" not in client.get("/metrics").text


def test_one_bundle_without_a_file_answers_by_its_own_name(client: TestClient) -> None:
    assert post(client, "/predict", text="the", model="tiny")["model"]["name"] == "tiny"
    assert client.get("/model").json()["models"] == ["tiny"]
    assert post(client, "/predict", 404, text="the", model="sea")["detail"] == "there is no such model; there is tiny"
