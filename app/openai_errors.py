"""Errors in OpenAI's shape, which those under `/v1` have.

Boundary: a problem document in, the same in another shape out. Who sends it is `app.problems`.
"""

from __future__ import annotations

from http import HTTPStatus

from app.openai_schemas import OpenAIError, OpenAIErrorAnswer
from app.schemas import Problem

PREFIX = "/v1"

_CODES: dict[int, str] = {HTTPStatus.UNAUTHORIZED: "invalid_api_key"}
"""What clients tell an error by, where its type does not."""


def speaks_openai(path: str) -> bool:
    """Whether requests for this path are answered in OpenAI's shapes."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def openai_status(status: int) -> int:
    """OpenAI calls a wrong field a bad request."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def openai_error(problem: Problem) -> OpenAIErrorAnswer:
    """What a problem document says, of the first wrong field where several are."""
    message, param = problem.detail, None
    if problem.errors:
        first = problem.errors[0]
        steps = first.pointer.split("/")
        param = steps[1].replace("~1", "/").replace("~0", "~") if len(steps) > 1 else None
        message = f"{param}: {first.detail}" if param else first.detail
    code = (
        "model_not_found" if problem.status == HTTPStatus.NOT_FOUND and param == "model" else _CODES.get(problem.status)
    )
    return OpenAIErrorAnswer(error=OpenAIError(message=message, type=_type(problem.status), param=param, code=code))


def _type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    if status == HTTPStatus.FORBIDDEN:
        return "permission_error"
    return "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
