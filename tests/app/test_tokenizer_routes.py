"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import CORPUS, small_vocabulary
from tests.app.serving import serving

VOCABULARY = small_vocabulary()


def tokenize(client: TestClient, prompt: str, **fields: Any) -> list[int]:
    response = client.post("/tokenize", json={"prompt": prompt, **fields})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["count"] == len(answer["tokens"])
    tokens: list[int] = answer["tokens"]
    return tokens


def detokenize(client: TestClient, tokens: list[int]) -> str:
    response = client.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 200, response.text
    prompt: str = response.json()["prompt"]
    return prompt


def test_every_newline_and_literal_eos_is_eos_and_none_is_added(client: TestClient) -> None:
    eos, the, sea, unk = map(VOCABULARY.id_of, ("<eos>", "the", "sea", "<unk>"))
    for text, expected in [
        ("the sea", [the, sea]),
        ("the sea\n", [the, sea, eos]),
        ("\nthe\n\nsea", [eos, the, eos, eos, sea]),
        ("<eos>", [eos]),
        ("<eos>the<eos>", [eos, the, eos]),
        ("Zanzibar <unk>", [unk, unk]),
        ("", []),
        (" \t", []),
    ]:
        assert tokenize(client, text) == expected
        assert tokenize(client, text, add_special_tokens=True, model="tiny") == expected


def test_corpus_lines_are_the_ids_that_training_reads(client: TestClient) -> None:
    text = "\n".join(CORPUS) + "\n"
    assert tokenize(client, text) == VOCABULARY.encode(text).tolist()


@pytest.mark.parametrize("long", [1, 10_000])
def test_what_the_vocabulary_calls_each_id_is_told_when_asked_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, long: int
) -> None:
    monkeypatch.setattr("app.reader.LONG", long)
    ask = {"prompt": "The sea,\nZanzibar", "return_token_strs": True}
    assert client.post("/tokenize", json=ask).json() == {
        "tokens": [*map(VOCABULARY.id_of, ("The", "sea", ",", "<eos>", "<unk>"))],
        "count": 5,
        "token_strs": ["The", "sea", ",", "<eos>", "<unk>"],
    }
    for said in (False, None):
        assert client.post("/tokenize", json=ask | {"return_token_strs": said}).json()["token_strs"] is None


def test_a_text_by_another_name_is_told_the_fields_name(client: TestClient) -> None:
    for fields in ({"text": "the"}, {"text": "the", "model": "tiny", "other": 1}):
        response = client.post("/tokenize", json=fields)
        assert response.status_code == 422
        assert response.json()["detail"] == "#: The text to tokenise should be in the field prompt, as vLLM has it"


def test_ids_become_text_and_the_text_those_ids(client: TestClient) -> None:
    for line in CORPUS:
        ids = tokenize(client, line + "\n")
        text = detokenize(client, ids)
        assert text == VOCABULARY.detokenise(ids)
        assert tokenize(client, text) == ids
    assert detokenize(client, []) == ""


def test_eos_comes_first_of_its_own_text_and_is_the_only_beginning(client: TestClient) -> None:
    info = client.get("/tokenizer_info").json()
    assert info == {
        "eos_token": "<eos>", "bos_token": None, "unk_token": "<unk>", "pad_token": None,
        "vocab_size": len(VOCABULARY), "convention": "wikitext",
    }  # fmt: skip
    assert tokenize(client, info["eos_token"])[0] == VOCABULARY.eos_id


def test_an_authorization_header_is_no_matter(client: TestClient) -> None:
    for value in ("Bearer ", "Bearer anything"):
        response = client.post("/tokenize", json={"prompt": "the"}, headers={"Authorization": value})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "fields", "pointer"),
    [
        ("/tokenize", {}, "#/prompt"),
        ("/tokenize", {"prompt": ["the"]}, "#/prompt"),
        ("/tokenize", {"prompt": "the " * 11}, "#/prompt"),
        ("/tokenize", {"prompt": "the", "unheard_of": 1}, "#/unheard_of"),
        ("/tokenize", {"prompt": "the", "text": "the"}, "#/text"),
        ("/tokenize", {"prompt": "the", "return_token_strs": 1}, "#/return_token_strs"),
        ("/detokenize", {}, "#/tokens"),
        ("/detokenize", {"tokens": [0], "unheard_of": 1}, "#/unheard_of"),
        ("/detokenize", {"tokens": [0, "1"]}, "#/tokens/1"),
        ("/detokenize", {"tokens": [0, 57]}, "#/tokens/1"),
        ("/detokenize", {"tokens": [-1]}, "#/tokens/0"),
        ("/detokenize", {"tokens": [1] * 11}, "#/tokens"),
    ],
)
def test_what_is_wrong_is_named_in_a_problem_document(path: str, fields: dict[str, Any], pointer: str) -> None:
    with serving(max_tokens=10) as client:
        response = client.post(path, json=fields)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["errors"][0]["pointer"] == pointer
