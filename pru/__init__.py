"""The project's front door: clients of the service, loaded when they are first asked for.

Boundary: names alone. Importing this package loads none of the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pru.client import (
        AnswerError,
        APIError,
        AsyncPRUClient,
        BrokenStreamError,
        ConflictError,
        ConnectionFailedError,
        DeadlineError,
        ForbiddenError,
        InvalidRequestError,
        ModelNotFoundError,
        NotFoundError,
        OverloadedError,
        PRUClient,
        PRUError,
        TimedOutError,
        TooLargeError,
        UnauthorizedError,
        UnavailableError,
    )

__all__ = [
    "APIError",
    "AnswerError",
    "AsyncPRUClient",
    "BrokenStreamError",
    "ConflictError",
    "ConnectionFailedError",
    "DeadlineError",
    "ForbiddenError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NotFoundError",
    "OverloadedError",
    "PRUClient",
    "PRUError",
    "TimedOutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
]


def __getattr__(name: str) -> object:
    """A name of the client's, whose packages are the extra `client`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("pru.client"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"the client needs {error.name}: pip install 'pru[client]'") from error
