"""Hostile text and hostile JSON over HTTP: what is text is scored exactly, what is not is refused with a problem."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import Floats, Ids, NumpyEngine, fake_model, small_vocabulary
from tests.app.serving import serving
from tests.app.test_refusals import JSON, pointers, problem

VOCABULARY = small_vocabulary()

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
"""Every control character there is."""


class IndifferentEngine(NumpyEngine):
    """Thinks the same of every next token, whatever it has read, so that a megabyte is read in a moment."""

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        return np.zeros((*ids.shape, self.size), np.float32), state


def log_probability(token: str) -> float:
    """What the indifferent engine always thinks of a token."""
    bias = NumpyEngine(len(VOCABULARY)).bias.astype(np.float64)
    return float(bias[VOCABULARY.id_of(token)] - math.log(np.exp(bias).sum()))


@pytest.fixture(scope="module")
def indifferent(_default_settings: None) -> Iterator[TestClient]:
    with serving(fake_model(build=IndifferentEngine)) as ready:
        yield ready


def test_a_megabyte_of_text_is_scored_to_its_end(indifferent: TestClient) -> None:
    count = 2**20 // len("the harbour ")
    answer = indifferent.post("/perplexity", json={"text": "the harbour " * count}).json()
    expected = count * (log_probability("the") + log_probability("harbour")) + log_probability("<eos>")
    assert answer["results"][0]["token_count"] == 2 * count + 1
    assert answer["results"][0]["oov_count"] == 0
    assert answer["results"][0]["log_likelihood"] == pytest.approx(expected, rel=1e-6)
    assert answer["perplexity"] == pytest.approx(math.exp(-expected / (2 * count + 1)), rel=1e-6)


def test_a_megabyte_of_text_is_read_before_a_prediction(indifferent: TestClient) -> None:
    count = 2**20 // len("the harbour ")
    answer = indifferent.post("/predict", json={"text": "the harbour " * count, "k": 1}).json()
    assert answer["token_count"] == 2 * count
    [best] = answer["predictions"]
    known = [word for word in VOCABULARY.words if word not in {"<eos>", "<unk>"}]
    assert best["token"] == max(known, key=log_probability)
    assert best["log_probability"] == pytest.approx(log_probability(best["token"]), abs=1e-5)


@pytest.mark.parametrize("unit", ["a ", "\n", "a\n"])
def test_a_megabyte_with_more_tokens_than_one_request_may_have_names_the_limit(client: TestClient, unit: str) -> None:
    document = problem(client.post("/predict", json={"text": unit * (2**20 // len(unit))}), 422)
    assert pointers(document) == ["#/text"]
    assert "250000" in document["detail"]
    assert "send less text at a time" in document["detail"]


@pytest.mark.parametrize("character", ["a", "Z", "7", "-", ".", "'", "🚢", "漢", "e\u0301", "<", "@", "\x7f"])
def test_a_million_characters_without_a_blank_are_one_unknown_token(client: TestClient, character: str) -> None:
    text = (character * 1_000_000)[:1_000_000]
    response = client.post("/perplexity", json={"text": text, "return_tokens": True, "include_eos": False})
    [result] = response.json()["results"]
    assert (result["token_count"], result["oov_count"]) == (1, 1)
    assert result["perplexity_without_oov"] is None
    [token] = result["tokens"]
    assert (token["token"], token["start"], token["end"], token["oov"]) == ("<unk>", 0, 1_000_000, True)
    assert client.post("/predict", json={"text": text}).json()["token_count"] == 1


def test_half_a_million_nul_characters_are_one_unknown_token_and_a_million_too_large_a_body(client: TestClient) -> None:
    [result] = client.post("/perplexity", json={"text": "\0" * 500_000, "include_eos": False}).json()["results"]
    assert (result["token_count"], result["oov_count"]) == (1, 1)
    problem(client.post("/perplexity", json={"text": "\0" * 1_000_000}), 413)


def test_a_prefix_of_a_million_characters_completes_nothing(client: TestClient) -> None:
    assert client.post("/predict", json={"text": "the", "prefix": "h" * 1_000_000}).json()["predictions"] == []


def test_every_control_character_comes_back_as_it_was_typed(client: TestClient) -> None:
    text = "".join(f"the{control}harbour {control} " for control in CONTROLS if control != "\n")
    response = client.post("/perplexity", json={"text": text, "return_words": True, "include_eos": False})
    words = response.json()["results"][0]["words"]
    assert [word["word"] for word in words] == text.split()
    assert all(text[word["start"] : word["end"]] == word["word"] for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "🚢 the 👩‍👩‍👧‍👦 harbour 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
        "the\U0010ffff harbour \ue000 \ufffe \ufdd0",
        "\u202ethe \u200bharbour\u2066 \ufeff",
        "ŉ ß ﬁ İ ǅ",
    ],
    ids=["emoji", "no-characters", "invisible", "changes-length-with-case"],
)
def test_words_of_any_script_come_back_as_they_were_typed(client: TestClient, text: str) -> None:
    response = client.post("/perplexity", json={"text": text, "return_words": True, "include_eos": False})
    assert [word["word"] for word in response.json()["results"][0]["words"]] == text.split()


def test_a_pair_of_escaped_surrogates_is_the_character_they_stand_for(client: TestClient) -> None:
    fields = b'{"text": "the \\ud83d\\udea2 harbour", "return_words": true}'
    escaped = client.post("/perplexity", content=fields, headers=JSON).json()
    assert escaped == client.post("/perplexity", json={"text": "the 🚢 harbour", "return_words": True}).json()
    assert escaped["results"][0]["words"][1]["word"] == "🚢"


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\xc0\x80"}',
        b'{"text": "\xf4\x90\x80\x80"}',
        '{"text": "é"}'.encode("latin-1"),
    ],
    ids=["overlong", "beyond-unicode", "latin-1"],
)
def test_bytes_that_are_not_utf_8_are_refused(client: TestClient, body: bytes) -> None:
    assert "UTF-8" in problem(client.post("/predict", content=body, headers=JSON), 400)["detail"]


def test_a_lone_surrogate_is_refused_in_bytes_as_it_is_in_an_escape(client: TestClient) -> None:
    response = client.post("/predict", content=b'{"text": "a \xed\xa0\x80"}', headers=JSON)
    assert pointers(problem(response, 422)) == ["#/text"]
    assert "character 2 is a lone surrogate" in response.json()["detail"]


def test_a_text_without_a_known_word_is_predicted_after_as_after_unknown_words(client: TestClient) -> None:
    strange = client.post("/predict", json={"text": "Zanzibar Tanganyika"}).json()
    assert strange == client.post("/predict", json={"text": "<unk> <unk>"}).json()
    assert strange["token_count"] == 2


@pytest.mark.parametrize("depth", [1, 10, 100, 500, 900, 950, 975, 990, 1000, 1010, 1500, 5000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_json_of_any_depth_is_refused_where_it_stands_or_as_a_whole(
    client: TestClient, depth: int, opening: str, closing: str
) -> None:
    deep = opening * depth + "1" + closing * depth
    for path, body, pointer in (
        ("/predict", f'{{"text": {deep}}}', "#/text"),
        ("/perplexity", f'{{"texts": ["the", {deep}]}}', "#/texts/1"),
        ("/perplexity", f'{{"text": "the", "other": {deep}}}', "#/other"),
    ):
        response = client.post(path, content=body, headers=JSON)
        if response.status_code == 400:
            assert depth > 500
            assert "nest no deeper than a request needs" in problem(response, 400)["detail"]
        else:
            assert depth < 100_000
            assert pointers(problem(response, 422)) == [pointer]


def test_ten_thousand_texts_are_scored_where_the_settings_allow_them() -> None:
    with serving(fake_model(build=IndifferentEngine), max_texts=10_000) as client:
        assert client.get("/model").json()["limits"]["texts"] == 10_000
        answer = client.post("/perplexity", json={"texts": ["the sea"] * 10_000}).json()
        assert len(answer["results"]) == 10_000
        assert answer["total"]["token_count"] == 30_000
        refused = problem(client.post("/perplexity", json={"texts": ["a"] * 10_001}), 422)
        assert "10001 texts were sent and one request may hold 10000; send fewer" in refused["detail"]


def test_ten_thousand_texts_may_not_have_more_tokens_together_than_one_may(client: TestClient) -> None:
    document = problem(client.post("/perplexity", json={"texts": ["the sea " * 250] * 1024}), 422)
    assert pointers(document) == ["#/texts/500"]
    assert "250000" in document["detail"]


# What follows is on no list of likely mistakes, and is sent all the same.


def test_a_byte_order_mark_before_the_json_is_no_part_of_it(client: TestClient) -> None:
    body = b'{"text": "the sea", "k": 3}'
    marked = client.post("/predict", content=b"\xef\xbb\xbf" + body, headers=JSON)
    assert marked.status_code == 200
    assert marked.json() == client.post("/predict", content=body, headers=JSON).json()


def test_of_a_key_that_stands_twice_the_last_counts(client: TestClient) -> None:
    twice = client.post("/predict", content=b'{"text": "the", "k": 1, "text": "a captain", "k": 4}', headers=JSON)
    assert twice.json() == client.post("/predict", json={"text": "a captain", "k": 4}).json()


@pytest.mark.parametrize("body", [b'{"text": "a"}{"text": "b"}', b'{"text": "a"}\n{"text": "b"}', b'{"text": "a"} x'])
def test_more_than_one_json_document_is_refused(client: TestClient, body: bytes) -> None:
    assert "not valid JSON: Extra data" in problem(client.post("/predict", content=body, headers=JSON), 400)["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_as_such(client: TestClient, coding: str) -> None:
    body = gzip.compress(b'{"text": "the"}')
    response = client.post("/predict", content=body, headers={**JSON, "Content-Encoding": coding})
    assert "Content-Encoding" in problem(response, 415)["detail"]


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_body_that_is_called_uncompressed_is_read(client: TestClient, coding: str) -> None:
    headers = {**JSON, "Content-Encoding": coding}
    assert client.post("/predict", content=b'{"text": "the"}', headers=headers).status_code == 200


def test_a_body_that_is_compressed_and_does_not_say_so_is_not_json(client: TestClient) -> None:
    problem(client.post("/predict", content=gzip.compress(b'{"text": "the"}'), headers=JSON), 400)


def test_numbers_of_ten_thousand_digits_are_refused_wherever_they_stand(client: TestClient) -> None:
    digits = "9" * 10_000
    for path, body in (("/predict", f'{{"text": "a", "k": {digits}}}'), ("/perplexity", f'{{"texts": [{digits}]}}')):
        problem(client.post(path, content=body, headers=JSON), 400)
    nearly = "9" * 4_000
    response = client.post("/predict", content=f'{{"text": "a", "k": {nearly}}}', headers=JSON)
    assert pointers(problem(response, 422)) == ["#/k"]
    assert len(response.content) < 2_000


def test_a_hundred_thousand_unknown_fields_are_one_error_and_a_hundred_are_told_briefly(client: TestClient) -> None:
    fields = {f"field{number}": number for number in range(100_000)}
    response = client.post("/predict", json={"text": "a", **fields})
    assert "A request should have at most 100 fields" in problem(response, 422)["detail"]
    few = {name: fields[name] for name in list(fields)[:99]}
    response = client.post("/predict", json={"text": "a", **few})
    assert len(problem(response, 422)["errors"]) == 20
    assert "98 more" in response.json()["detail"]


def test_a_path_and_a_query_may_hold_anything(client: TestClient) -> None:
    for path in (
        "/%00",
        "/%ff",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/predict%00",
        "/model/",
        "/static/%2e%2e/main.py",
        "/a" * 5_000,
    ):
        problem(client.get(path), 404)
    assert client.get("/model?" + "a=1&" * 5_000).status_code == 200
