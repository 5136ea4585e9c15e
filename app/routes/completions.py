"""`POST /v1/completions` and `GET /v1/models`: OpenAI's shapes, so that existing clients work unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, format_sse_event

from app.openai_errors import PREFIX, openai_error
from app.openai_schemas import Choice, Completion, CompletionRequest, ServedModelEntry, ServedModels, Usage
from app.reader import aside
from app.routes.documentation import OPENAI_REFUSALS, OPENAI_UNKNOWN, OPENAI_UNREADY
from app.routes.events import failed
from app.routes.model import require_json
from app.routes.state import model_of, models
from app.running import Running, Tell
from app.schemas import Answer

EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
"""An event of a stream, for OpenAPI."""

Piece = Choice | Usage
"""Of a choice; at the end, what all of them came to."""

router = APIRouter(prefix=PREFIX, tags=["openai"])


@router.post(
    "/completions",
    dependencies=[Depends(require_json)],
    response_model=Completion,
    responses=OPENAI_REFUSALS
    | {
        200: {
            "description": "One answer, or with `stream` events without a name, each a Completion with a piece of one "
            "choice, and `[DONE]` after them; should it fail on the way, an OpenAIErrorAnswer ends them.",
            "content": {"text/event-stream": {"schema": EVENT}},
        }
    },
    summary="Write on after prompts, or score them",
)
async def complete(body: CompletionRequest, request: Request) -> Response:
    """Let the model write on after each prompt; with `echo` and `logprobs`, also score the prompts.

    A prompt of text is read after an initial `<eos>`, so its first token has a log-probability. Ids are read
    literally, so the first one has none: begin them with the id of `<eos>`. Log-probabilities are natural and the
    model's own over the whole vocabulary; `<unk>` has its place among them and is never written. A choice ends with
    `<eos>`, which the arrays hold and the text does not, before a stop text, or after `max_tokens`.
    """
    chosen = model_of(request, body.model)
    answering = chosen.completions
    if not body.stream:
        with chosen:
            answer = await answering.answer(body)
        size = sum(len(choice.text) for choice in answer.choices)
        return Response(await aside(size, answer.model_dump_json), media_type="application/json")

    async def write(tell: Tell[Piece]) -> None:
        tell(await answering.write(body, tell))

    pieces = Running(write, held=chosen)
    tell_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return EventSourceResponse(_events(await pieces.first(), pieces, answering.head(), request, tell_usage=tell_usage))


@router.get("/models", responses=OPENAI_UNREADY, summary="The models served")
async def all_models(request: Request) -> ServedModels:
    """Every model that can be asked by its name, the default first."""
    registry = models(request)
    return ServedModels(data=[registry.named(name).completions.model for name in registry.names])


@router.get("/models/{model}", responses=OPENAI_UNKNOWN | OPENAI_UNREADY, summary="A model served")
async def model(model: str, request: Request) -> ServedModelEntry:
    """A model that can be asked, by its name."""
    return model_of(request, model).completions.model


async def _events(
    item: Piece, pieces: Running[Piece], head: dict[str, Any], request: Request, *, tell_usage: bool
) -> AsyncIterator[bytes]:
    """Events from the first item on."""
    try:
        while isinstance(item, Choice):
            yield _event(Completion(**head, choices=[item], usage=None))
            item = await pieces.next()
        if tell_usage:
            yield _event(Completion(**head, choices=[], usage=item))
        yield format_sse_event(data_str="[DONE]")
    except Exception as error:
        yield _event(openai_error(failed(error, request)))
    finally:
        await pieces.close()


def _event(answer: Answer) -> bytes:
    return format_sse_event(data_str=answer.model_dump_json())
