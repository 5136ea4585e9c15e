"""`POST /predict`, `POST /perplexity` and `GET /model`."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, HTTPException, Request

from app.routes.documentation import REFUSALS, problems
from app.routes.state import model_of, models, settings
from app.schemas import (
    MAX_K,
    Limits,
    ModelCard,
    ModelName,
    PerplexityAnswer,
    PerplexityRequest,
    PredictAnswer,
    PredictRequest,
)

router = APIRouter(tags=["model"])


async def require_json(request: Request) -> None:
    """Refuse a body that does not call itself JSON, with 415 rather than as a wrong field."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as Content-Type: application/json")


@router.post(
    "/predict",
    dependencies=[Depends(require_json)],
    responses=REFUSALS,
    summary="The most likely next words",
)
async def predict(body: PredictRequest, request: Request) -> PredictAnswer:
    """Predict the word after `text`, or the rest of the word begun with `prefix`.

    Probabilities are the model's own, over its whole vocabulary: what is left out is not shared among what is shown.
    """
    with model_of(request, body.model) as model:
        return await model.service.predict(body)


@router.post(
    "/perplexity",
    dependencies=[Depends(require_json)],
    responses=REFUSALS,
    response_model_exclude_unset=True,
    summary="How likely texts are",
)
async def perplexity(body: PerplexityRequest, request: Request) -> PerplexityAnswer:
    """Score `text`, or each of `texts` from a fresh start.

    A newline is `<eos>`. Log-probabilities are natural, surprisal is in bits. One text that cannot be scored refuses
    the request and is named.
    """
    with model_of(request, body.model) as model:
        return await model.service.perplexity(body)


@router.get(
    "/model",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    summary="Model card and limits",
)
async def card(request: Request, model: ModelName = None) -> ModelCard:
    """What is served, how good it is on named data, and what a request may ask."""
    chosen, all_models, limits = model_of(request, model), models(request), settings(request)
    served = chosen.served
    return ModelCard(
        model=chosen.identity,
        models=all_models.names,
        trouble=all_models.trouble,
        convention=served.vocabulary.convention.value,
        vocabulary_size=len(served.vocabulary),
        limits=Limits(
            body_bytes=limits.max_body_bytes,
            texts=limits.max_texts,
            tokens=limits.max_tokens,
            k=MAX_K,
            waiting_requests=limits.queue_limit,
            waiting_tokens=limits.queue_tokens,
            deadline_seconds=limits.deadline_seconds,
        ),
        **served.card,
    )
