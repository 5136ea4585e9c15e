"""Errors as HTTP answers: RFC 9457 problem documents (`application/problem+json`).

Boundary: one function renders every problem, whoever found it (a route, the router, the middleware). The message of
an error that is the service's own fault stays in the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.errors import STATUS, TOLD, FieldError
from app.schemas import FieldProblem, Problem
from model.errors import PRUError

PROBLEM_JSON = "application/problem+json"
UNREADABLE = "the body cannot be read as JSON: send UTF-8, and nest no deeper than a request needs"
MAX_FIELD_PROBLEMS = 20
MAX_POINTER = 200

RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS: "1", HTTPStatus.SERVICE_UNAVAILABLE: "1"}
"""Seconds after which a refused request is worth another try."""


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document. ASCII JSON, so that no character of a request can make it impossible to write."""
    status = HTTPStatus(status)
    document = Problem(
        title=status.phrase, status=status.value, detail=detail, request_id=request_id, errors=list(errors) or None
    )
    retry = {"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {}
    content = json.dumps(document.model_dump(exclude_none=True)).encode("ascii")
    return Response(content, status.value, {**retry, **(headers or {})}, PROBLEM_JSON)


def problem_of(error: PRUError, request_id: str) -> Response:
    """The problem document of one of the project's errors."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if not isinstance(error, TOLD):
        return problem(status, failure_detail(request_id), request_id)
    fields = [FieldProblem(pointer=pointer(error.path), detail=str(error))] if isinstance(error, FieldError) else []
    return problem(status, str(error), request_id, errors=fields)


def failure_detail(request_id: str) -> str:
    """What a client is told of a failure that is the service's own."""
    return f"the service failed; its log has the cause under request id {request_id}"


def pointer(path: Sequence[str | int]) -> str:
    """JSON pointer (RFC 6901) into the request body, as a URI fragment; cut where a field's name is very long."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return ("#" + "".join(f"/{step}" for step in steps))[:MAX_POINTER]


def install(app: FastAPI) -> None:
    """Answer the errors of requests with problem documents. What is not listed is a failure: the middleware's part."""
    for told in TOLD:
        app.add_exception_handler(told, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, PRUError)
    return problem_of(error, request.state.request_id)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = UNREADABLE if error.status_code == HTTPStatus.BAD_REQUEST else error.detail
    return problem(error.status_code, detail, request.state.request_id, headers=error.headers)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        where = f"the body is not valid JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][1]}"
        return problem(HTTPStatus.BAD_REQUEST, where, request.state.request_id)
    fields = [_field_problem(item) for item in found[:MAX_FIELD_PROBLEMS]]
    count = len(found)
    detail = f"{fields[0].pointer}: {fields[0].detail}" + (f" ({count - 1} more)" if count > 1 else "")
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, request.state.request_id, errors=fields)


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors, without the input it found."""
    place, *path = error["loc"]
    return FieldProblem(pointer=pointer(path if place == "body" else [place, *path]), detail=error["msg"])
