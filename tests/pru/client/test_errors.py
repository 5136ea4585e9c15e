"""Every error of the service is one of the client's, and says what the service said."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

import app.cli
import app.main
import app.server  # noqa: F401 - any class of the tree that serving defines
from app import errors
from app.errors import STATUS, TOLD, AnswerExistsError, FieldError, PositionError, QuotaError, StoreError
from app.problems import problem_of
from app.sessions.store import StoredAnswer
from model.errors import PRUError
from pru import (
    APIError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
    PRUClient,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from tests.app.processes import Service
from tests.pru.client.script import Script, refused

EXPECTED: dict[int, type[APIError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    422: InvalidRequestError,
    429: OverloadedError,
    500: APIError,
    503: UnavailableError,
    504: DeadlineError,
}

ARGUMENTS: dict[type[PRUError], tuple[Any, ...]] = {
    PositionError: (3, "say it otherwise"),
    errors.ModelNotFoundError: (("model",), "say it otherwise"),
    QuotaError: (7.5, "say it otherwise"),
    StoreError: ("/secret/place", "is full", "make room"),
    AnswerExistsError: (StoredAnswer("key", "f" * 64, b"{}", 0.0),),
}
"""What errors are made with that take more than a message, or a path and a message."""


def made(kind: type[PRUError]) -> PRUError:
    """An error of a class."""
    default = (("texts", 3), "say it otherwise") if issubclass(kind, FieldError) else ("say it otherwise",)
    return kind(*ARGUMENTS.get(kind, default))


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_service_is_raised_as_the_class_of_its_status(kind: type[PRUError]) -> None:
    error = made(kind)
    response = problem_of(error, "id-1")
    script = Script(httpx2.Response(response.status_code, content=bytes(response.body), headers=dict(response.headers)))
    with script.client(max_retries=0) as client, pytest.raises(APIError) as found:
        client.predict("the")
    raised = found.value
    assert type(raised) is (ModelNotFoundError if kind is errors.ModelNotFoundError else EXPECTED[STATUS[kind]])
    assert (raised.status, raised.request_id) == (STATUS[kind], "id-1")
    assert raised.title == STATUS[kind].phrase
    assert raised.detail == str(error) if isinstance(error, TOLD) else "say it" not in raised.detail
    assert str(raised) == f"{raised.status} {raised.title}: {raised.detail} (request id-1)"
    assert raised.retry_after == (8.0 if kind is QuotaError else 1.0 if raised.status in {429, 503} else None)
    if isinstance(raised, ConflictError):
        assert raised.position == (3 if kind is PositionError else None)
    if isinstance(raised, InvalidRequestError):
        assert [it.pointer for it in raised.errors] == (["#/texts/3"] if isinstance(error, FieldError) else [])


@pytest.mark.parametrize("status", [400, 405, 415, 418, 431, 500, 501])
def test_a_status_without_a_class_of_its_own_is_an_api_error(status: int) -> None:
    with Script(refused(status, "no")).client() as client, pytest.raises(APIError, match=f"{status} .*: no") as found:
        client.predict("the")
    assert type(found.value) is APIError


def test_all_errors_are_of_the_projects_one_tree() -> None:
    import pru

    kinds = [getattr(pru, name) for name in pru.__all__ if name.endswith("Error")]
    assert len(kinds) == 16
    assert all(issubclass(kind, PRUError) for kind in kinds)


@pytest.mark.parametrize(
    ("options", "pointer"),
    [({"k": 101}, "#/k"), ({"prefix": "two words"}, "#/prefix"), ({"text": "\ud800"}, "#/text"), ({"no": 1}, "#/no")],
)
def test_a_wrong_field_is_named_by_the_service(service: Service, options: dict[str, Any], pointer: str) -> None:
    with PRUClient(service.url) as client, pytest.raises(InvalidRequestError) as found:
        client.predict(**{"text": "the", **options})
    assert [it.pointer for it in found.value.errors] == [pointer]
    assert pointer in str(found.value)


def test_two_clients_on_one_session_conflict_and_nothing_is_read_twice(service: Service) -> None:
    with PRUClient(service.url) as one, PRUClient(service.url) as other, one.session("the harbour") as session:
        same = other.attach(session.id)
        assert same.append("is").position == 3
        for change in (lambda: session.append("was"), session.continue_, lambda: list(session.stream())):
            with pytest.raises(ConflictError) as found:
                change()
            assert (found.value.position, session.position) == (3, 2)
        assert session.refresh().position == 3
        assert session.append("small").position == 4
        with pytest.raises(InvalidRequestError, match="go back from 4 to 0"):
            session.rewind(5)
        assert session.position == 4


def test_a_session_that_is_not_there_is_not_found(service: Service) -> None:
    with PRUClient(service.url) as client:
        for name in ("nowhere", "", "a/b", "a b?c#d"):
            with pytest.raises(NotFoundError):
                client.attach(name)
        with pytest.raises(PRUError):
            client.attach("..")


def test_too_large_a_body_is_told_with_what_to_do(service: Service) -> None:
    with PRUClient(service.url) as client, pytest.raises(TooLargeError, match="4194304 bytes; send less at a time"):
        client.import_session(b"x" * (4 * 2**20 + 1))


def test_a_damaged_blob_is_refused(service: Service) -> None:
    with PRUClient(service.url) as client, client.session("the") as session:
        blob = session.export()
        with pytest.raises(InvalidRequestError, match="cut or altered"):
            client.import_session(blob[:-1])
        assert client.import_session(blob).position == 1
