"""Requests and answers of the session routes, over HTTP and WebSocket alike.

Boundary: as `app.schemas`, whose bases these are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from app.schemas import (
    Answer,
    FinishReason,
    ModelIdentity,
    ModelName,
    Prediction,
    Request,
    Suggesting,
    Text,
    TokenScore,
    whole,
)

MAX_TTL = 30 * 24 * 3600
MAX_GENERATED = 1000
MAX_STOPS = 16
MAX_STOP_LENGTH = 1000
MAX_SEED = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


def _in_a_list(value: object) -> object:
    """One text as a list of it: errors of a choice between the two would name neither."""
    return [value] if isinstance(value, str) else value


Position = Annotated[int, Field(ge=0), BeforeValidator(whole)]
ExpectedPosition = Annotated[
    Position | None, Field(description="Refuse with 409, and change nothing, unless the session stands here.")
]


class CreateRequest(Request):
    """Start a session."""

    text: Annotated[Text, Field(description="What has been written so far: whole words. May be empty.")] = ""
    model: ModelName = None
    ttl: Annotated[
        float | None, Field(ge=1, le=MAX_TTL, description="Seconds it lives after its last use; the server's default.")
    ] = None
    personal: Annotated[
        bool,
        Field(description="Adapt to what is typed: the session remembers words, and suggests and scores with them."),
    ] = False


class AppendRequest(Suggesting):
    """Read more text, or with an empty one only ask for what comes next."""

    text: Annotated[Text, Field(description="Whole words, which follow all that was read.")] = ""
    expected_position: ExpectedPosition = None


class RewindRequest(Request):
    """Forget what was read after a position."""

    position: Annotated[Position, Field(description="Not before the session's `earliest_position`.")]


class ContinueRequest(Request):
    """Let the model write on."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_GENERATED, description="Most tokens."), BeforeValidator(whole)] = 16
    temperature: Annotated[float, Field(ge=0, le=5, description="0 always takes the likeliest word.")] = 1.0
    top_k: Annotated[
        int | None, Field(ge=1, description="Draw from this many likeliest words."), BeforeValidator(whole)
    ] = None
    top_p: Annotated[float, Field(gt=0, le=1, description="Draw from the likeliest words of this probability.")] = 1.0
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="The same words again; drawn and returned where not given."),
        BeforeValidator(whole),
    ] = None
    stop: Annotated[
        list[Stop],
        Field(
            default_factory=list,
            max_length=MAX_STOPS,
            fail_fast=True,
            description="Texts before which to end: before the word in which one begins. A newline is a line's end.",
        ),
        BeforeValidator(_in_a_list, json_schema_input_type=Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)]),
    ]
    include_unk: Annotated[bool, Field(description="Let <unk> be written.")] = False
    stream: Annotated[bool, Field(description="Server-sent events `token` … `done` instead of one answer.")] = False
    commit: Annotated[bool, Field(description="Whether the session goes on after the words written.")] = True
    expected_position: ExpectedPosition = None


class Personal(Answer):
    """What a personal session remembers of its user, by which its probabilities are not the model's own."""

    tokens: Annotated[int, Field(description="Latest tokens that the neural cache looks back on.")]
    own_words: Annotated[int, Field(description="Different words outside the vocabulary that may be suggested.")]


class SessionAnswer(Answer):
    """Where a session stands."""

    model: ModelIdentity
    session_id: str
    position: Annotated[int, Field(description="Tokens read after the initial <eos>.")]
    earliest_position: Annotated[int, Field(description="The furthest it can be rewound.")]
    expires_at: Annotated[datetime, Field(description="When it ends unless it is used.")]
    personal: Annotated[
        Personal | None, Field(description="Of a personal session only.", exclude_if=lambda value: value is None)
    ] = None


class AppendAnswer(SessionAnswer):
    """What was read, with its scores, and what may come next."""

    tokens: list[TokenScore]
    predictions: list[Prediction]


class GeneratedToken(Answer):
    """A token the model wrote: an event `token` of a stream."""

    token: str
    text: Annotated[str, Field(description="What it adds to the text, blanks included.")]
    log_probability: Annotated[float, Field(description="Natural logarithm; the session's own at any temperature.")]


class ContinueAnswer(SessionAnswer):
    """What the model wrote."""

    text: Annotated[str, Field(description="The texts of all tokens, joined.")]
    tokens: list[GeneratedToken]
    finish_reason: FinishReason
    seed: int
    committed: bool


class ContinueDone(SessionAnswer):
    """The event `done`, which ends a stream: the same without what its events `token` told."""

    finish_reason: FinishReason
    seed: int
    committed: bool


class _Frame(Request):
    """What every frame of a WebSocket has. `id` is the client's own; every frame that answers it has it too."""

    id: Annotated[str, Field(max_length=64)] | int
    idempotency_key: Annotated[str | None, Field(min_length=1, max_length=200, pattern="^[!-~]+$")] = None


class AppendFrame(_Frame, AppendRequest):
    """`POST …/append` as a frame."""

    type: Literal["append"]


class RewindFrame(_Frame, RewindRequest):
    """`POST …/rewind` as a frame."""

    type: Literal["rewind"]


class ContinueFrame(_Frame, ContinueRequest):
    """`POST …/continue` as a frame; with `stream`, its tokens come as frames of their own."""

    type: Literal["continue"]


class CancelFrame(_Frame):
    """Give up what the frame `target` asked for, if it is not done."""

    type: Literal["cancel"]
    target: Annotated[str, Field(max_length=64)] | int


Frame = Annotated[AppendFrame | RewindFrame | ContinueFrame | CancelFrame, Field(discriminator="type")]
"""What a client may send over a WebSocket."""
