"""How refusals, and the header fields of every answer, appear in the OpenAPI document."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from app.openai_errors import openai_status, speaks_openai
from app.openai_schemas import OpenAIErrorAnswer
from app.problems import PROBLEM_JSON, RETRY_AFTER
from app.schemas import Problem

MEANING = {
    HTTPStatus.BAD_REQUEST: "The body cannot be parsed.",
    HTTPStatus.UNAUTHORIZED: "Keys are needed, and the request has none that holds.",
    HTTPStatus.FORBIDDEN: "The key may not do this.",
    HTTPStatus.NOT_FOUND: "There is no such model or session, or it has expired.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not come within the deadline.",
    HTTPStatus.CONFLICT: "The session stands elsewhere (`position`), or belongs to another bundle.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is compressed, or not called JSON.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A field is wrong; `errors` says which.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests wait, or the key's quota is used up; see Retry-After.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is starting or stopping.",
    HTTPStatus.GATEWAY_TIMEOUT: "The request was not done within the deadline.",
}

OPENAI_MEANING = {
    HTTPStatus.BAD_REQUEST: "The body cannot be parsed, or a field is wrong; `param` says which.",
    HTTPStatus.NOT_FOUND: "There is no such model.",
}
"""What differs under `/v1`."""

REQUEST_ID_FIELD = {
    "X-Request-Id": {
        "description": "The request's own, where it is a sane one, or one made for it; the log has the same.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"},
    }
}
RETRY_AFTER_FIELD = {
    "Retry-After": {
        "description": "Seconds after which the same request is worth another try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}

AUTHENTICATE_FIELD = {
    "WWW-Authenticate": {"description": "How to send a key.", "required": True, "schema": {"const": "Bearer"}}
}
KEY_SCHEME = "key"

SCHEMA = "#/components/schemas/{model}"

Responses = dict[int | str, dict[str, Any]]


def _fields(status: HTTPStatus) -> dict[str, Any]:
    if status == HTTPStatus.UNAUTHORIZED:
        return AUTHENTICATE_FIELD
    return RETRY_AFTER_FIELD if status in RETRY_AFTER else {}


def problems(*statuses: HTTPStatus) -> Responses:
    """The `responses` argument of a route that may answer with these problems."""
    schema = {"$ref": SCHEMA.format(model=Problem.__name__)}
    return {
        status.value: {
            "description": MEANING[status],
            "headers": _fields(status),
            "content": {PROBLEM_JSON: {"schema": schema}},
        }
        for status in statuses
    }


KEYLESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
"""What a request may meet at the door of any route, where keys are needed."""
REFUSALS = problems(*(MEANING.keys() - {HTTPStatus.CONFLICT}))
"""Every refusal that a request with a body may meet."""


def openai_errors(*statuses: HTTPStatus) -> Responses:
    """The same for a route under `/v1`, in OpenAI's shape."""
    return {
        openai_status(status): {
            "description": OPENAI_MEANING.get(status, MEANING[status]),
            "headers": _fields(status),
            "model": OpenAIErrorAnswer,
        }
        for status in statuses
    }


OPENAI_UNKNOWN = openai_errors(HTTPStatus.NOT_FOUND)
OPENAI_UNREADY = openai_errors(HTTPStatus.SERVICE_UNAVAILABLE)
OPENAI_REFUSALS = openai_errors(*(MEANING.keys() - {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}))
"""Every error that a request with a body may meet under `/v1`."""


def add_problem_schema(app: FastAPI) -> None:
    """Make the document of all the routes included so far, and put into it what FastAPI leaves out of it.

    That is the schema that refusals refer to, since FastAPI can declare further answers only in the media type of the
    first, and a problem has its own; and the header field that the middleware puts into every answer.
    """
    schema = Problem.model_json_schema(mode="serialization", ref_template=SCHEMA)
    document = app.openapi()
    document["components"]["schemas"] |= schema.pop("$defs") | {Problem.__name__: schema}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["components"]["securitySchemes"] = {KEY_SCHEME: {"type": "http", "scheme": "bearer"}}
    # Whether a key is needed is the operator's choice.
    document["security"] = [{}, {KEY_SCHEME: []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in (openai_errors if speaks_openai(path) else problems)(*KEYLESS).items():
                if "model" in answer:
                    answer["content"] = {
                        "application/json": {"schema": {"$ref": SCHEMA.format(model=answer.pop("model").__name__)}}
                    }
                operation["responses"].setdefault(str(status), answer)
            if speaks_openai(path):
                # FastAPI documents its own answer to wrong fields where nobody says what 422 is.
                operation["responses"].pop(str(HTTPStatus.UNPROCESSABLE_ENTITY.value), None)
            for response in operation["responses"].values():
                response["headers"] = response.get("headers", {}) | REQUEST_ID_FIELD
