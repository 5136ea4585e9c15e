"""The service's own errors, and the HTTP status of every error of the project.

Boundary: classes and one table. How an error is written as an answer is `app.problems`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from model.errors import (
    BundleError,
    CheckpointError,
    ConfigurationError,
    CorpusError,
    EngineError,
    EngineMemoryError,
    ExportError,
    PRUError,
    RequestError,
    TextError,
    TrainingError,
)

if TYPE_CHECKING:
    from app.sessions.store import StoredAnswer


class FieldError(RequestError):
    """A request field that cannot be honoured. `path` leads to it: `("texts", 3)`."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        super().__init__(message)
        self.path = tuple(path)


class ModelNotFoundError(FieldError):
    """A model by a name that none of those served has."""


class BlobError(RequestError):
    """Bytes that are no exported session, or a damaged one."""


class IdempotencyError(RequestError):
    """An `Idempotency-Key` that was used for another request."""


class SessionNotFoundError(RequestError):
    """A session that there is not, or not any more."""


class PositionError(RequestError):
    """A session that stands elsewhere than the request expects: at `position`."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class OtherBundleError(RequestError):
    """A session whose state belongs to a bundle that is not served."""


class UnauthorizedError(RequestError):
    """A request without a key that holds."""


class ForbiddenError(RequestError):
    """A request that its key, or the page that sent it, may never make."""


class ServiceError(PRUError):
    """The service cannot take this request now; the same request may succeed later."""


class StartingError(ServiceError):
    """The engine is not warm yet."""


class DrainingError(ServiceError):
    """The service finishes what it has and takes nothing new."""


class BodyMemoryError(ServiceError):
    """More bytes of bodies than the service holds at once."""


class OverloadedError(ServiceError):
    """More requests wait for the engine than the queue's limit."""


class QuotaError(ServiceError):
    """A key has used up its requests or tokens; in so many `seconds` there is enough for the same request."""

    def __init__(self, seconds: float, message: str) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(f"{message}; try again in {self.retry_after} seconds")


class DeadlineError(ServiceError):
    """The request waited and ran for longer than the deadline."""


class StoreError(ServiceError):
    """The store of sessions could not do what it was asked, and has changed nothing unless the message says so.

    The message tells a client what is `wrong` and what to do. Where the store is, and how to mend it, is the operator's
    business: `details`, for the log.
    """

    def __init__(self, place: str, wrong: str, mend: str, advice: str = "try again later") -> None:
        super().__init__(f"the session store {wrong}; {advice}")
        self.details = f"{place} {wrong}; {mend}"


class AnswerExistsError(ServiceError):
    """Another request with the same key was faster; `answer` is what it was answered. Nothing has changed."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__("a request with this Idempotency-Key was answered meanwhile; send it again for that answer")
        self.answer = answer


STATUS: dict[type[PRUError], HTTPStatus] = {
    PRUError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    TextError: HTTPStatus.UNPROCESSABLE_ENTITY,
    CorpusError: HTTPStatus.INTERNAL_SERVER_ERROR,
    CheckpointError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    TrainingError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ExportError: HTTPStatus.INTERNAL_SERVER_ERROR,
    EngineError: HTTPStatus.INTERNAL_SERVER_ERROR,
    EngineMemoryError: HTTPStatus.SERVICE_UNAVAILABLE,
    RequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FieldError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelNotFoundError: HTTPStatus.NOT_FOUND,
    BlobError: HTTPStatus.UNPROCESSABLE_ENTITY,
    IdempotencyError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SessionNotFoundError: HTTPStatus.NOT_FOUND,
    PositionError: HTTPStatus.CONFLICT,
    OtherBundleError: HTTPStatus.CONFLICT,
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    ServiceError: HTTPStatus.SERVICE_UNAVAILABLE,
    StartingError: HTTPStatus.SERVICE_UNAVAILABLE,
    DrainingError: HTTPStatus.SERVICE_UNAVAILABLE,
    BodyMemoryError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    AnswerExistsError: HTTPStatus.CONFLICT,
    OverloadedError: HTTPStatus.TOO_MANY_REQUESTS,
    QuotaError: HTTPStatus.TOO_MANY_REQUESTS,
    DeadlineError: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The status of every error class. A test finds every class of the tree here."""

TOLD = (RequestError, ServiceError, TextError)
"""Classes whose message is for the client. That of any other is for the log alone."""
