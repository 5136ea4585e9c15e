"""Clients of the service, for callers that block and for asyncio, with the types of what they answer.

Boundary: knows the service by the shapes of its requests and answers alone (`app.schemas`, `app.session_schemas`,
`app.openai_schemas`); importing it loads neither the service nor an engine. It needs the extra `client`.
"""

from app.openai_schemas import TokenizerInfo
from app.schemas import FinishReason, ModelCard, PerplexityAnswer, PredictAnswer, Ready
from app.session_schemas import AppendAnswer, ContinueAnswer, GeneratedToken, Personal, SessionAnswer
from model.errors import PRUError
from pru.client.asynchronous import AsyncPRUClient, AsyncSession, AsyncTokenStream
from pru.client.blocking import PRUClient, Session, TokenStream
from pru.client.errors import (
    AnswerError,
    APIError,
    BrokenStreamError,
    ConflictError,
    ConnectionFailedError,
    DeadlineError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)

__all__ = [
    "APIError",
    "AnswerError",
    "AppendAnswer",
    "AsyncPRUClient",
    "AsyncSession",
    "AsyncTokenStream",
    "BrokenStreamError",
    "ConflictError",
    "ConnectionFailedError",
    "ContinueAnswer",
    "DeadlineError",
    "FinishReason",
    "ForbiddenError",
    "GeneratedToken",
    "InvalidRequestError",
    "ModelCard",
    "ModelNotFoundError",
    "NotFoundError",
    "OverloadedError",
    "PRUClient",
    "PRUError",
    "PerplexityAnswer",
    "Personal",
    "PredictAnswer",
    "Ready",
    "Session",
    "SessionAnswer",
    "TimedOutError",
    "TokenStream",
    "TokenizerInfo",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
]
