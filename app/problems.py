"""Errors as HTTP answers: RFC 9457 problem documents (`application/problem+json`), or OpenAI's shape under `/v1`.

Boundary: one class renders every problem, whoever found it (a route, the router, the middleware). The message of
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
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from app.errors import STATUS, TOLD, FieldError, PositionError, QuotaError, UnauthorizedError
from app.openai_errors import openai_error, openai_status, speaks_openai
from app.schemas import FieldProblem, Problem
from model.errors import PRUError

PROBLEM_JSON = "application/problem+json"
UNREADABLE = "the body cannot be read as JSON: send UTF-8, and nest no deeper than a request needs"
NOWHERE = "there is nothing at this path; /docs lists what there is"
CHAT = "/v1/chat/"
NO_CHAT = "there is no chat model here: send the text that is to be continued to /v1/completions"
MAX_FIELD_PROBLEMS = 20
MAX_POINTER = 200

RETRY_AFTER: dict[int, str] = {HTTPStatus.TOO_MANY_REQUESTS: "1", HTTPStatus.SERVICE_UNAVAILABLE: "1"}
"""Seconds after which a refused request is worth another try."""


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A refusal with its problem document."""
    return ProblemResponse(_document(status, detail, request_id, errors), headers)


def problem_of(error: PRUError, request_id: str) -> Response:
    """The refusal that one of the project's errors is."""
    headers: dict[str, str] = {}
    if isinstance(error, QuotaError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return ProblemResponse(document_of(error, request_id), headers)


def document_of(error: Exception, request_id: str) -> Problem:
    """The problem document of an error; of one that is not for clients to know, it says only where to look."""
    kinds = (kind for kind in type(error).__mro__ if kind in STATUS)
    status = STATUS[next(kinds, PRUError)]
    if not isinstance(error, TOLD):
        return _document(status, failure_detail(request_id), request_id)
    fields = [FieldProblem(pointer=pointer(error.path), detail=str(error))] if isinstance(error, FieldError) else []
    position = error.position if isinstance(error, PositionError) else None
    return _document(status, str(error), request_id, fields, position)


def document_of_invalid(found: Sequence[Mapping[str, Any]], request_id: str) -> Problem:
    """The problem document of pydantic's errors: 400 for what is no JSON, else 422."""
    if found[0]["type"] == "json_invalid":
        return _document(HTTPStatus.BAD_REQUEST, "the frame is not valid JSON", request_id)
    fields = [_field_problem(item) for item in found[:MAX_FIELD_PROBLEMS]]
    count = len(found)
    detail = f"{fields[0].pointer}: {fields[0].detail}" + (f" ({count - 1} more)" if count > 1 else "")
    return _document(HTTPStatus.UNPROCESSABLE_ENTITY, detail, request_id, fields)


def _document(
    status: int,
    detail: str,
    request_id: str,
    errors: Sequence[FieldProblem] = (),
    position: int | None = None,
) -> Problem:
    status = HTTPStatus(status)
    return Problem(
        title=status.phrase,
        status=status.value,
        detail=detail,
        request_id=request_id,
        errors=list(errors) or None,
        position=position,
    )


class ProblemResponse(Response):
    """A problem document; sent to who asked for a path under `/v1`, the same in OpenAI's shape."""

    def __init__(self, document: Problem, headers: Mapping[str, str] | None = None) -> None:
        retry = {"Retry-After": RETRY_AFTER[document.status]} if document.status in RETRY_AFTER else {}
        content = _ascii_json(document.model_dump(exclude_none=True))
        super().__init__(content, document.status, {**retry, **(headers or {})}, PROBLEM_JSON)
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, in the shape that the path asks for."""
        if speaks_openai(scope["path"]):
            self.status_code = openai_status(self.status_code)
            self.body = _ascii_json(openai_error(self._document).model_dump())
            self.headers["Content-Type"] = "application/json"
            self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def _ascii_json(content: Mapping[str, Any]) -> bytes:
    """JSON that no character of a request can make impossible to write."""
    return json.dumps(content).encode("ascii")


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
    detail = error.detail
    if error.status_code == HTTPStatus.BAD_REQUEST:
        detail = UNREADABLE
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = NO_CHAT if request.url.path.startswith(CHAT) else NOWHERE
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
        headers = {"Allow": ", ".join(sorted(methods))}
    return problem(error.status_code, detail, request.state.request_id, headers=headers)


def _methods(request: Request) -> set[str]:
    """Methods documented for the request's path; the router knows only those of the first route that is there.

    As OpenAPI has it, a path that is written out hides the templates that match it.
    """
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    path = request.url.path
    templates = [path] if path in paths else [it for it in paths if compile_path(it)[0].match(path)]
    found = [paths[template] for template in templates]
    return {method.upper() for methods in found for method in methods}


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        where = f"the body is not valid JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][1]}"
        return problem(HTTPStatus.BAD_REQUEST, where, request.state.request_id)
    return ProblemResponse(document_of_invalid(found, request.state.request_id))


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors, without the input it found."""
    path = error["loc"]
    return FieldProblem(pointer=pointer(path[1:] if path[:1] == ("body",) else path), detail=error["msg"])
