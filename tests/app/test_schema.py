"""The whole OpenAPI document held to its word by schemathesis: by requests that fit it, and by ones that just do not.

Schemathesis tries every limit of every field, every method and media type that a route has not, and then what it
likes. An answer must be one that the document shows: its status, its media type and its fields. What fits the document
is answered, what does not is refused, and nothing is a 500.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx2
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.served_model import ServedModel
from tests.app.fakes import Gate, NumpyEngine, fake_model
from tests.app.serving import PATIENCE, make_app, serving

Case = schemathesis.Case[Any]

DOCUMENT = schemathesis.openapi.from_dict(make_app().openapi())

CONFORMANCE = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
]  # fmt: skip
"""What holds of every answer, whether or not the service does what it was asked."""


UNKNOWABLE = {
    "/sessions/import": {422},
    "/detokenize": {404, 422},
    "/v1/completions": {400, 404},
    "/predict": {404},
    "/perplexity": {404},
    "/sessions": {404},
    "/tokenize": {404},
    "/tokenizer_info": {404},
    "/model": {404},
}
"""Routes that take what the document cannot say whether there is: a session's bytes, ids, a model's name."""

AT_ONCE = {"/tokenize", "/detokenize"}
"""Routes that wait for nothing, and so are never late."""


def ask(client: TestClient, case: Case) -> httpx2.Response:
    """Send what schemathesis made up."""
    request = case.as_transport_kwargs(base_url=str(client.base_url))
    assert not request.pop("cookies")
    if "data" in request:
        request["content"] = request.pop("data")
    headers = request.pop("headers")
    if fits(case) and "idempotency-key" in headers:
        # A key is for one request; schemathesis sends the same one with others.
        headers["idempotency-key"] = uuid.uuid4().hex
    encoded = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers.items()]
    return client.request(headers=encoded, **request)


def fits(case: Case) -> bool:
    """Whether a request is one that the document allows."""
    assert case.meta is not None
    return case.meta.generation.mode.is_positive


def depends_on_what_there_is(case: Case) -> set[int]:
    """Statuses of requests that fit the document and name a session, a model or an id that there is not."""
    if case.path in UNKNOWABLE:
        return UNKNOWABLE[case.path]
    return {404} if "{" in case.path else set()


def test_schemathesis_checks_what_this_file_says() -> None:
    load_all_checks()
    assert {
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "unsupported_method",
    } <= {name for name in CHECKS.get_all_names() if DOCUMENT.config.checks.get_by_name(name=name).enabled}


@DOCUMENT.parametrize()
@settings(max_examples=30)
def test_every_answer_is_a_documented_one(case: Case, client: TestClient) -> None:
    response = ask(client, case)
    unfit: Any = [positive_data_acceptance] if response.status_code in depends_on_what_there_is(case) else []
    case.validate_response(response, excluded_checks=unfit)
    assert response.headers["x-request-id"]


@pytest.fixture(scope="module")
def narrow_client(_default_settings: None) -> Iterator[TestClient]:
    """A client of a service that takes very little at a time."""
    with serving(max_body_bytes=100, max_texts=2, max_tokens=3) as ready:
        yield ready


@DOCUMENT.parametrize()
@settings(max_examples=10)
def test_what_is_beyond_the_limits_of_the_settings_is_refused_as_documented(
    case: Case, narrow_client: TestClient
) -> None:
    # The document is the same whatever the settings are, so what fits it may be refused; and to the check of what
    # does not fit, 413 is no refusal.
    case.validate_response(
        ask(narrow_client, case), excluded_checks=[positive_data_acceptance, negative_data_rejection]
    )


@contextmanager
def starting() -> Iterator[TestClient]:
    """A service whose engine is not warm yet."""
    gate = Gate()
    gate.shut()
    with TestClient(make_app(gated(gate))) as client:
        try:
            yield client
        finally:
            gate.open.set()


@contextmanager
def draining() -> Iterator[TestClient]:
    """A service that is stopping."""
    app = make_app()
    with TestClient(app) as client:
        app.state.lifecycle.draining = True
        yield client


@contextmanager
def overloaded() -> Iterator[TestClient]:
    """A service whose queue is full."""
    gate = Gate()
    with serving(gated(gate), queue_limit=0) as client, ThreadPoolExecutor() as pool:
        gate.shut()
        running = pool.submit(client.post, "/predict", json={"text": "the"})
        try:
            assert gate.reached.wait(PATIENCE)
            yield client
        finally:
            gate.open.set()
        assert running.result().status_code == HTTPStatus.OK


@contextmanager
def late() -> Iterator[TestClient]:
    """A service that has no time for any request."""
    with serving(deadline_seconds=1e-9) as client:
        yield client


def gated(gate: Gate) -> ServedModel:
    """A model whose engine waits at a gate."""
    return fake_model(build=lambda size: NumpyEngine(size, before=gate))


STATES = {
    starting: HTTPStatus.SERVICE_UNAVAILABLE,
    draining: HTTPStatus.SERVICE_UNAVAILABLE,
    overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    late: HTTPStatus.GATEWAY_TIMEOUT,
}
"""Services that cannot answer now, and what they say to whoever asks them something."""


@pytest.fixture(scope="module", params=STATES, ids=lambda state: state.__name__)
def unable(request: pytest.FixtureRequest, _default_settings: None) -> Iterator[tuple[TestClient, HTTPStatus]]:
    """A client of a service that cannot answer now, and what it says."""
    with request.param() as client:
        yield client, STATES[request.param]


@DOCUMENT.parametrize()
@settings(max_examples=10, phases=[Phase.generate, Phase.shrink])
def test_a_service_that_cannot_answer_says_so_as_documented(case: Case, unable: tuple[TestClient, HTTPStatus]) -> None:
    client, expected = unable
    response = ask(client, case)
    if fits(case) and case.method == "POST":
        at_once = {HTTPStatus.OK} if case.path in AT_ONCE and expected == HTTPStatus.GATEWAY_TIMEOUT else set()
        assert response.status_code in {expected, *at_once, *depends_on_what_there_is(case)}
    case.validate_response(response, CONFORMANCE)
