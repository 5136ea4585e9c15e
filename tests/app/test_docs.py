"""`/docs` and `/openapi.json`: complete, and needing nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient


def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def references(node: Any) -> set[str]:
    """Every `$ref` under a node."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_the_page_fetches_only_from_this_server(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)="([^"]*)"|url: '([^']*)'""", page.text)
    found = [address for pair in addresses for address in pair if address]
    assert len(found) >= 3
    for address in found:
        assert address.startswith("/"), address
        assert not address.startswith("//"), address
        assert client.get(address).status_code == 200, address
    assert "http" not in page.text.replace("httpx", "")


def test_every_route_is_documented(client: TestClient) -> None:
    paths = document(client)["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == {
        "/predict": {"post"},
        "/perplexity": {"post"},
        "/model": {"get"},
        "/sessions": {"post"},
        "/sessions/import": {"post"},
        "/sessions/{session_id}": {"get", "delete"},
        "/sessions/{session_id}/append": {"post"},
        "/sessions/{session_id}/rewind": {"post"},
        "/sessions/{session_id}/fork": {"post"},
        "/sessions/{session_id}/continue": {"post"},
        "/sessions/{session_id}/export": {"get"},
        "/v1/completions": {"post"},
        "/v1/models": {"get"},
        "/v1/models/{model}": {"get"},
        "/tokenize": {"post"},
        "/detokenize": {"post"},
        "/tokenizer_info": {"get"},
        "/health/live": {"get"},
        "/health/ready": {"get"},
        "/metrics": {"get"},
    }


def test_every_reference_has_its_schema(client: TestClient) -> None:
    api = document(client)
    schemas = {f"#/components/schemas/{name}" for name in api["components"]["schemas"]}
    assert references(api) <= schemas
    assert "#/components/schemas/Problem" in schemas
    assert not any("HTTPValidationError" in name for name in schemas)


@pytest.mark.parametrize("path", ["/predict", "/perplexity"])
def test_every_refusal_is_documented_as_a_problem(client: TestClient, path: str) -> None:
    responses = document(client)["paths"][path]["post"]["responses"]
    assert responses.keys() == {"200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "503", "504"}
    for status, response in responses.items():
        assert list(response["content"]) == ["application/json" if status == "200" else "application/problem+json"]


def test_every_refusal_under_v1_is_documented_in_openais_shape(client: TestClient) -> None:
    paths = document(client)["paths"]
    responses = paths["/v1/completions"]["post"]["responses"]
    assert responses.keys() == {"200", "400", "401", "403", "404", "408", "413", "415", "429", "503", "504"}
    assert responses["200"]["content"].keys() == {"application/json", "text/event-stream"}
    schema = {"$ref": "#/components/schemas/OpenAIErrorAnswer"}
    for status in responses.keys() - {"200"}:
        assert responses[status]["content"] == {"application/json": {"schema": schema}}, status
    assert paths["/v1/models/{model}"]["get"]["responses"].keys() == {"200", "401", "403", "404", "429", "503"}


def test_the_header_fields_of_answers_are_documented(client: TestClient) -> None:
    for path, operations in document(client)["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                own = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
                expected = {"X-Request-Id"} | own.get(status, set())
                assert response["headers"].keys() == expected, (path, status)
                assert all(field["required"] for field in response["headers"].values())


def test_a_key_is_documented_as_what_may_be_sent_and_refused_everywhere(client: TestClient) -> None:
    found = document(client)
    assert found["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert found["security"] == [{}, {"key": []}]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            assert {"401", "403", "429"} <= operation["responses"].keys(), path


def test_every_field_that_a_client_sends_is_described(client: TestClient) -> None:
    schemas = document(client)["components"]["schemas"]
    for name in (
        "PredictRequest", "PerplexityRequest", "CreateRequest", "AppendRequest", "RewindRequest", "ContinueRequest",
        "TokenizeRequest", "DetokenizeRequest",
    ):  # fmt: skip
        assert schemas[name]["additionalProperties"] is False
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"
    for name in ("CompletionRequest", "StreamOptions"):
        assert "additionalProperties" not in schemas[name]
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


def test_the_limits_of_fields_are_documented(client: TestClient) -> None:
    schemas = document(client)["components"]["schemas"]
    k = schemas["PredictRequest"]["properties"]["k"]
    assert (k["type"], k["minimum"], k["maximum"], k["default"]) == ("integer", 1, 100, 5)
    assert schemas["PredictRequest"]["required"] == ["text"]
    assert schemas["PerplexityRequest"]["properties"]["texts"]["minItems"] == 1
    assert schemas["PerplexityRequest"]["oneOf"] == [{"required": ["text"]}, {"required": ["texts"]}]


def test_the_documented_pattern_of_a_prefix_is_what_is_taken(client: TestClient) -> None:
    pattern = re.compile(document(client)["components"]["schemas"]["PredictRequest"]["properties"]["prefix"]["pattern"])
    for character in map(chr, range(0x10000)):
        assert bool(pattern.fullmatch(character)) != character.isspace(), hex(ord(character))
