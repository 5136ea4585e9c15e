"""What a client raises: the service's refusals by their status, and answers that did not come.

    PRUError
    ├── APIError                  the service answered with an error; a status that is not below is this class
    │   ├── UnauthorizedError     401: no key, or none that holds
    │   ├── ForbiddenError        403: what the key is not for
    │   ├── NotFoundError         404: no such session, or not any more
    │   │   └── ModelNotFoundError  no such model
    │   ├── ConflictError         409: the session stands elsewhere, or belongs to another bundle
    │   ├── TooLargeError         413
    │   ├── InvalidRequestError   422: wrong fields
    │   ├── OverloadedError       429: too much waits, or the key's quota is used up
    │   ├── UnavailableError      503: starting, stopping, or without its store
    │   └── DeadlineError         504
    ├── ConnectionFailedError     no whole answer came
    │   └── TimedOutError         nothing came for too long
    ├── AnswerError               an answer that is not one of this service's
    └── BrokenStreamError         a stream that broke and could not be taken up again

Boundary: classes, and which of them a status is. An address that is no address is a `ConfigurationError`.
"""

from __future__ import annotations

from http import HTTPStatus

from app.schemas import FieldProblem, Problem
from model.errors import PRUError


class APIError(PRUError):
    """An error that the service answered with. Nothing was changed by the request."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        request_id: str | None = None,
        *,
        problem: Problem | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}" + (f" (request {request_id})" if request_id else ""))
        self.status = status
        self.title = title
        self.detail = detail
        self.request_id = request_id
        """By which the service's log names the request; None where no service gave one."""
        self.problem = problem
        """The problem document (RFC 9457); None where something between answered without one."""
        self.retry_after = retry_after
        """Seconds after which the service would be asked again, if it said so."""


class UnauthorizedError(APIError):
    """The service needs a key, and was sent none or one that is wrong, expired or withdrawn."""


class ForbiddenError(APIError):
    """The key is not for this route, or may never have as many tokens as this request needs."""


class NotFoundError(APIError):
    """A session that there is not, or not any more. Make a new one from its text."""


class ModelNotFoundError(NotFoundError):
    """A model by a name that none has; `client.model().models` are those there are."""


class ConflictError(APIError):
    """A session that stands elsewhere than expected, or belongs to another bundle than the one served."""

    @property
    def position(self) -> int | None:
        """Where the session stands, if it was expected elsewhere."""
        return self.problem.position if self.problem else None


class TooLargeError(APIError):
    """A body of more bytes than the service takes; `client.model().limits` says how many."""


class InvalidRequestError(APIError):
    """Fields that are wrong, or ask for what cannot be given."""

    @property
    def errors(self) -> list[FieldProblem]:
        """Each field that is wrong, where the service named them."""
        return (self.problem and self.problem.errors) or []


class OverloadedError(APIError):
    """More requests wait than the service allows, or the key's quota is used up until `retry_after`."""


class UnavailableError(APIError):
    """The service is starting or stopping, or lacks what it needs."""


class DeadlineError(APIError):
    """The request waited and ran for longer than the service allows."""


class ConnectionFailedError(PRUError):
    """No whole answer came: the service could not be reached, or the connection broke."""


class TimedOutError(ConnectionFailedError):
    """Nothing came from the service for too long."""


class AnswerError(PRUError):
    """An answer that is not one of this service's: a wrong address, or another version."""


class BrokenStreamError(PRUError):
    """A stream broke, and asked for again the model wrote other words than those handed out; or it was left."""


BY_STATUS: dict[int, type[APIError]] = {
    HTTPStatus.UNAUTHORIZED: UnauthorizedError,
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLargeError,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequestError,
    HTTPStatus.TOO_MANY_REQUESTS: OverloadedError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    HTTPStatus.GATEWAY_TIMEOUT: DeadlineError,
}
"""The class of each status that has one of its own."""


def api_error(problem: Problem, retry_after: float | None = None) -> APIError:
    """The error that a problem document tells of."""
    kind = BY_STATUS.get(problem.status, APIError)
    # What a request names and is not there is a model where a field names it, and else a session by its address.
    if kind is NotFoundError and problem.errors:
        kind = ModelNotFoundError
    return kind(
        problem.status, problem.title, problem.detail, problem.request_id, problem=problem, retry_after=retry_after
    )
