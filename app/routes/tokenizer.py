"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as evaluation harnesses ask for them."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, Request

from app.openai_schemas import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest, TokenizerInfo
from app.reader import aside
from app.routes.documentation import REFUSALS, problems
from app.routes.model import require_json
from app.routes.state import model_of
from app.schemas import ModelName

router = APIRouter(tags=["tokenizer"])


@router.post("/tokenize", dependencies=[Depends(require_json)], responses=REFUSALS, summary="Text to ids")
async def tokenize(body: TokenizeRequest, request: Request) -> TokenizeAnswer:
    """Ids of a text, as a prompt of `/v1/completions` has them: no `<eos>` is added before it or after it."""
    with model_of(request, body.model) as model:
        tokens = await model.completions.tokenise(body.prompt)
        word_of, strs = model.service.vocabulary.word_of, None
        if body.return_token_strs:
            strs = await aside(len(tokens), lambda: [word_of(token_id) for token_id in tokens])
    return TokenizeAnswer(tokens=tokens, count=len(tokens), token_strs=strs)


@router.post("/detokenize", dependencies=[Depends(require_json)], responses=REFUSALS, summary="Ids to text")
async def detokenize(body: DetokenizeRequest, request: Request) -> DetokenizeAnswer:
    """Ids as people write them; what was read as `<unk>` stays so."""
    with model_of(request, body.model) as model:
        return DetokenizeAnswer(prompt=await model.completions.detokenise(body.tokens))


@router.get(
    "/tokenizer_info",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
    summary="Special tokens",
)
async def tokenizer_info(request: Request, model: ModelName = None) -> TokenizerInfo:
    """The vocabulary's special tokens. Every text begins after `<eos>`, which also ends it."""
    vocabulary = model_of(request, model).service.vocabulary
    return TokenizerInfo(
        eos_token=vocabulary.word_of(vocabulary.eos_id),
        unk_token=vocabulary.word_of(vocabulary.unk_id),
        vocab_size=len(vocabulary),
        convention=vocabulary.convention.value,
    )
