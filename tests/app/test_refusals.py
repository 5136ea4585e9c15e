"""Requests that cannot be answered: each has a status, a problem document, and no 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.app.serving import serving

JSON = {"Content-Type": "application/json"}


def problem(response: Any, status: int) -> dict[str, Any]:
    """The problem document of a refusal, checked for what every one of them must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def pointers(document: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in document["errors"]]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "#/text"),
        ({"text": None}, "#/text"),
        ({"text": 5}, "#/text"),
        ({"text": ["a"]}, "#/text"),
        ({"text": {"a": 1}}, "#/text"),
        ({"text": "a", "k": 0}, "#/k"),
        ({"text": "a", "k": -1}, "#/k"),
        ({"text": "a", "k": 101}, "#/k"),
        ({"text": "a", "k": 10**9}, "#/k"),
        ({"text": "a", "k": 10**30}, "#/k"),
        ({"text": "a", "k": "5"}, "#/k"),
        ({"text": "a", "k": 5.5}, "#/k"),
        ({"text": "a", "k": True}, "#/k"),
        ({"text": "a", "k": None}, "#/k"),
        ({"text": "a", "prefix": "b c"}, "#/prefix"),
        ({"text": "a", "prefix": "b\n"}, "#/prefix"),
        ({"text": "a", "prefix": 1}, "#/prefix"),
        ({"text": "a", "words_only": 1}, "#/words_only"),
        ({"text": "a", "include_special": "yes"}, "#/include_special"),
        ({"text": "a", "temperature": 1}, "#/temperature"),
        ({"text": "a", "a/b~c": 1}, "#/a~1b~0c"),
        ([], "#"),
        ("text", "#"),
        (None, "#"),
        (1, "#"),
    ],
)
def test_a_wrong_field_of_predict_is_named(client: TestClient, fields: Any, pointer: str) -> None:
    document = problem(client.post("/predict", content=json.dumps(fields), headers=JSON), 422)
    assert pointers(document)[0] == pointer
    assert document["detail"].startswith(f"{pointer}: ")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "#"),
        ({"text": "a", "texts": ["b"]}, "#"),
        ({"texts": []}, "#/texts"),
        ({"texts": "a"}, "#/texts"),
        ({"texts": ["a", "b", 3, "d"]}, "#/texts/2"),
        ({"texts": ["a", None]}, "#/texts/1"),
        ({"texts": ["a", ["b"]]}, "#/texts/1"),
        ({"text": "a", "context": 1}, "#/context"),
        ({"text": "a", "return_tokens": "true"}, "#/return_tokens"),
        ({"text": "a", "include_eos": None}, "#/include_eos"),
        ({"text": "a", "k": 3}, "#/k"),
        ({"text": None, "texts": ["a"]}, "#/text"),
    ],
)
def test_a_wrong_field_of_perplexity_is_named(client: TestClient, fields: Any, pointer: str) -> None:
    assert pointers(problem(client.post("/perplexity", json=fields), 422))[0] == pointer


@pytest.mark.parametrize(
    "fields", ['{"text": "a\\ud800b"}', '{"text": "", "prefix": "\\udfff"}', '{"text":"","\\ud800":1}']
)
def test_lone_surrogates_are_refused_since_no_answer_could_carry_them(client: TestClient, fields: str) -> None:
    problem(client.post("/predict", content=fields, headers=JSON), 422)


def test_a_lone_surrogate_among_texts_is_named(client: TestClient) -> None:
    response = client.post("/perplexity", content='{"texts": ["a", "\\ud800"]}', headers=JSON)
    assert pointers(problem(response, 422)) == ["#/texts/1"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"text": "a"',
        b"text=a",
        b"{'text': 'a'}",
        b'{"text": "a",}',
        b'{"text": "a\nb"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text":' * 50_000,
        b'{"text": "a", "k": 1' + b"0" * 10_000 + b"}",
        b"\x00",
    ],
)
def test_a_body_that_is_not_json_is_400(client: TestClient, body: bytes) -> None:
    problem(client.post("/predict", content=body, headers=JSON), 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_json_cannot_hold_are_wrong_fields(client: TestClient, number: str) -> None:
    body = f'{{"text": "a", "k": {number}}}'
    assert pointers(problem(client.post("/predict", content=body, headers=JSON), 422)) == ["#/k"]


def test_an_empty_body_is_a_wrong_field(client: TestClient) -> None:
    problem(client.post("/predict", headers=JSON), 422)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"]
)
def test_a_body_of_another_type_is_415(client: TestClient, content_type: str) -> None:
    response = client.post("/predict", content=b'{"text": "a"}', headers={"Content-Type": content_type})
    assert "application/json" in problem(response, 415)["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_named_in_any_case_and_with_parameters(client: TestClient, content_type: str) -> None:
    response = client.post("/predict", content=b'{"text": "a"}', headers={"Content-Type": content_type})
    assert response.status_code == 200


def test_an_unknown_path_is_404_and_another_method_405(client: TestClient) -> None:
    assert problem(client.get("/nowhere"), 404)["detail"].endswith("; /docs lists what there is")
    assert client.get("/docs").status_code == 200
    problem(client.post("/predict/", json={"text": "a"}), 404)
    assert problem(client.get("/predict"), 405)["status"] == 405
    assert client.get("/predict").headers["allow"] == "POST"
    problem(client.delete("/model"), 405)


def test_a_body_over_the_limit_is_413_announced_or_not() -> None:
    with serving(max_body_bytes=100) as client:
        fits = json.dumps({"text": "a" * 80}).encode()
        assert len(fits) <= 100
        assert client.post("/predict", content=fits, headers=JSON).status_code == 200
        response = client.post("/predict", json={"text": "a" * 100})
        assert "100 bytes" in problem(response, 413)["detail"]
        assert response.headers["connection"] == "close"
        problem(client.post("/predict", content=iter([b'{"text": "', b"a" * 100, b'"}']), headers=JSON), 413)


def test_more_texts_than_allowed_are_refused() -> None:
    with serving(max_texts=3) as client:
        assert client.post("/perplexity", json={"texts": ["a"] * 3}).status_code == 200
        assert pointers(problem(client.post("/perplexity", json={"texts": ["a"] * 4}), 422)) == ["#/texts"]


def test_ten_thousand_texts_and_ten_thousand_wrong_ones_are_refused_briefly(client: TestClient) -> None:
    refused = problem(client.post("/perplexity", json={"texts": ["a"] * 10_000}), 422)
    assert "10000 texts were sent and one request may hold 1024; send fewer" in refused["detail"]
    response = client.post("/perplexity", json={"texts": [1] * 10_000})
    assert pointers(problem(response, 422)) == ["#/texts/0"]


def _list(item: str, count: int) -> str:
    return f"[{','.join([item] * count)}]"


@pytest.mark.parametrize(
    ("path", "field", "item", "most", "told"),
    [
        ("/perplexity", "texts", '""', 2**16, "1024"),
        ("/v1/completions", "prompt", '""', 2**16, "1024"),
        ("/v1/completions", "prompt", "[1]", 2**16, "1024"),
        ("/v1/completions", "prompt", "1", 10**6, "250000"),
        ("/detokenize", "tokens", "1", 10**6, "250000"),
    ],
)
def test_lists_longer_than_any_settings_allow_are_refused_unread_and_shorter_ones_by_the_settings(
    client: TestClient, path: str, field: str, item: str, most: int, told: str
) -> None:
    def refused(items: str) -> str:
        return client.post(path, content=f'{{"{field}": {items}}}', headers=JSON).text

    assert told in refused(_list(item, most))
    # Had any of them been looked at, the last one would be what is wrong.
    unread = _list(item, most)[:-1] + ", {}]"
    assert f"should have at most {most} items after validation, not {most + 1}" in refused(unread)


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/v1/completions", {"prompt": "the"}), ("/sessions/none/continue", {})],
)
def test_a_long_list_of_wrong_stops_is_one_error(client: TestClient, path: str, fields: dict[str, str]) -> None:
    response = client.post(path, json={**fields, "stop": [1] * 100_000})
    assert len(response.content) < 500
    assert "more)" not in response.text
    assert "valid string" in response.text


def test_a_very_long_field_name_is_cut(client: TestClient) -> None:
    assert len(client.post("/predict", json={"text": "", "x" * 10**6: 1}).content) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "a\x00b \x1b[31m\x7f",
        "\ufeff",
        "\u2028 \u0085",
        "🚢" * 1000,
        "a" * 1_000_000,
        "\u202e\u0301" * 100,
        "<eos>",
    ],
)
def test_strange_text_is_text(client: TestClient, text: str) -> None:
    assert client.post("/predict", json={"text": text}).status_code == 200
    response = client.post("/perplexity", json={"text": text, "return_tokens": True, "return_words": True})
    assert response.status_code == 200


def test_a_strange_prefix_completes_nothing(client: TestClient) -> None:
    response = client.post("/predict", json={"text": "the", "prefix": "\x00🚢"})
    assert response.json()["predictions"] == []


@pytest.mark.parametrize("given", ["abc-DEF_1.2:3", "a" * 64])
def test_a_sane_request_id_is_kept(client: TestClient, given: str) -> None:
    response = client.get("/health/live", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 65, "two words", "semi;colon", "\xe9", "<script>"])
def test_another_request_id_is_replaced(client: TestClient, given: str) -> None:
    made = client.get("/health/live", headers={b"X-Request-Id": given.encode("latin-1")}).headers["x-request-id"]
    assert made != given
    assert len(made) == 32


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(["text", "texts", "k", "prefix", "context", "words_only", "return_tokens", "include_eos"]), anything
)


@settings(max_examples=60)
@given(fields | anything, st.sampled_from(["/predict", "/perplexity"]))
def test_whatever_json_is_sent_the_answer_is_200_or_422(client: TestClient, body: Any, path: str) -> None:
    response = client.post(path, content=json.dumps(body), headers=JSON)
    assert response.status_code in {200, 422}, response.text
    if response.status_code == 422:
        problem(response, 422)


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_whatever_bytes_are_sent_the_answer_is_200_400_or_422(client: TestClient, body: bytes) -> None:
    assert client.post("/predict", content=body, headers=JSON).status_code in {200, 400, 422}
