"""What came of a request: its answer, or the error it is, and how long to wait before it is sent again.

Boundary: pure. Responses and httpx2's errors in, answers, the client's errors and seconds out; nothing is sent here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from app.schemas import Problem
from model.errors import ConfigurationError, PRUError
from pru.client.calls import Call
from pru.client.errors import BY_STATUS, AnswerError, APIError, ConnectionFailedError, TimedOutError, api_error

T = TypeVar("T")

PASSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses after which the same request may succeed."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds. The first is doubled for each attempt; the wait is drawn between 0 and that ("full jitter"), so that clients
that were refused together do not come back together."""
MOST_RETRY_AFTER = 30.0
"""Seconds that the service may ask to wait. What asks for more is raised at once, with the time in `retry_after`."""


def answer_of(call: Call[T], response: httpx2.Response) -> T:
    """The answer in a whole response; raises the `APIError` it is, or `AnswerError`."""
    check(call, response)
    try:
        return call.read(response.content)
    except ValueError:
        what = f"answered {call.method} {call.path} with fields that this client does not know"
        raise _strange(response, what) from None


def check(call: Call[Any], response: httpx2.Response) -> None:
    """Raise the error that a response is, whose body was read unless it is a success."""
    if not response.is_success:
        raise _refusal(response)
    if call.media_type and (kind := _media_type(response)) != call.media_type:
        raise _strange(response, f"answered {call.method} {call.path} with {kind or 'nothing'}, not {call.media_type}")


@contextmanager
def translated(call: Call[Any], place: str) -> Iterator[None]:
    """httpx2's errors as the client's. `place` names the service; no address is repeated, which may hold a password."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise TimedOutError(_no_answer(call, place, "it took too long")) from error
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise ConfigurationError("the request cannot be written; mend the client's address or headers") from error
    except (httpx2.SSEError, httpx2.DecodingError) as error:
        raise AnswerError(f"{place} answered what cannot be read: {error}; {_MEND}") from error
    except httpx2.TransportError as error:
        raise ConnectionFailedError(_no_answer(call, place, str(error) or type(error).__name__)) from error


def wait_after(error: PRUError, call: Call[Any], attempt: int, max_retries: int) -> float:
    """Seconds to wait before `call` is sent again, after `attempt` (from 0) failed; raises `error` where it is not."""
    asked = error.retry_after if isinstance(error, APIError) else None
    if attempt >= max_retries or not call.patient or not _may_pass(error, call, attempt):
        raise error
    if asked is not None and asked > MOST_RETRY_AFTER:
        raise error
    return (asked or 0.0) + random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2**attempt))


def _may_pass(error: PRUError, call: Call[Any], attempt: int) -> bool:
    if isinstance(error, APIError):
        # The conflict may be with the attempt before, which was being answered: its key then brings that answer.
        overlapping = error.status == HTTPStatus.CONFLICT and call.key is not None and attempt > 0
        return error.status in PASSING or overlapping
    return isinstance(error, ConnectionFailedError)


def _refusal(response: httpx2.Response) -> APIError:
    retry_after = _seconds(response.headers.get("Retry-After"))
    try:
        problem = Problem.model_validate_json(response.content)
        if problem.status == response.status_code:
            return api_error(problem, retry_after)
    except ValidationError:
        pass
    status = response.status_code
    kind = _media_type(response) or "nothing"
    detail = f"{_place(response)} answered with {kind} and no problem document; {_MEND}"
    title = response.reason_phrase or "Error"
    return BY_STATUS.get(status, APIError)(
        status, title, detail, response.headers.get("X-Request-Id"), retry_after=retry_after
    )


def _seconds(retry_after: str | None) -> float | None:
    """The time in a field `Retry-After`: seconds, or a date. None where it is neither."""
    if retry_after is None:
        return None
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


_MEND = "check that the address is a PRU service's, of this client's version"


def _strange(response: httpx2.Response, what: str) -> AnswerError:
    return AnswerError(f"{_place(response)} {what}; {_MEND}")


def _no_answer(call: Call[Any], place: str, reason: str) -> str:
    line = f"no answer came from {place}: {reason}; check that the service runs there, or try again later"
    return f"{line} (whether the session was changed is not known: look at it)" if call.key else line


def _media_type(response: httpx2.Response) -> str:
    media_type: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type


def _place(response: httpx2.Response) -> str:
    return response.url.netloc.decode("ascii")
