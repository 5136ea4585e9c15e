"""What the service does with text: predict the next word, and score.

Boundary: text and requests in, answers out; the engine is behind `EngineThread`, HTTP and the terminal are above.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from app import scoring
from app.admission import Admission
from app.engine_thread import EngineThread
from app.errors import FieldError
from app.schemas import (
    ModelIdentity,
    PerplexityAnswer,
    PerplexityRequest,
    PredictAnswer,
    Prediction,
    PredictRequest,
)
from app.scored_text import ScoredText, score_of
from app.scoring import Floats, Ids
from model.vocabulary import Tokens, Vocabulary

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]

LONG = 4096
"""Characters or tokens beyond which work on a text leaves the event loop to others."""


@dataclass(frozen=True)
class RequestLimits:
    """Most texts, and most tokens of all texts together, in one request."""

    texts: int
    tokens: int


class ModelService:
    """One model's answers. Refuses what is beyond the limits with `FieldError`."""

    def __init__(
        self,
        identity: ModelIdentity,
        vocabulary: Vocabulary,
        engine: EngineThread,
        admission: Admission,
        limits: RequestLimits,
    ) -> None:
        self.identity = identity
        self.vocabulary = vocabulary
        self.limits = limits
        self._engine = engine
        self._admission = admission

    def warm(self) -> None:
        """Make now what is otherwise made when it is first needed: some tenths of a second for a large vocabulary."""
        _ = self._special, self._word
        for any_case_and_own in ("a", "A"):
            self.vocabulary.completions(any_case_and_own)

    async def predict(self, request: PredictRequest) -> PredictAnswer:
        """The most likely next words after a text."""
        async with self._admission.admit():
            return await self._predict(request)

    async def perplexity(self, request: PerplexityRequest) -> PerplexityAnswer:
        """The likelihood of one text or of many."""
        async with self._admission.admit():
            return await self._perplexity(request)

    async def score(
        self, texts: Sequence[str], paths: Sequence[tuple[str | int, ...]], context: str = "", include_eos: bool = True
    ) -> list[ScoredText]:
        """Score each text afresh after `context`. `paths` says where each text stands in the request, for errors."""
        before = await self._tokenise(("context",), context, 0, goes_on=True)
        count = len(before.ids)
        tokens = []
        for path, text in zip(paths, texts, strict=True):
            tokens.append(await self._tokenise(path, text, count, goes_on=False))
            count += len(tokens[-1].ids)
        if include_eos:
            tokens = [self._with_eos(item, len(text)) for item, text in zip(tokens, texts, strict=True)]
        scores = await self._engine.score(self._after_eos(before.ids), [item.ids for item in tokens])
        return [ScoredText(*parts) for parts in zip(texts, tokens, scores, strict=True)]

    async def _predict(self, request: PredictRequest) -> PredictAnswer:
        tokens = await self._tokenise(("text",), request.text, 0, goes_on=True)
        ids, values = await self._best(self._after_eos(tokens.ids), request)
        return PredictAnswer(
            model=self.identity,
            predictions=[
                Prediction(
                    word=self.vocabulary.surface(token_id),
                    token=self.vocabulary.word_of(token_id),
                    probability=float(np.exp(value)),
                    log_probability=value,
                )
                for token_id, value in zip(ids.tolist(), values.astype(np.float64).tolist(), strict=True)
            ],
            token_count=len(tokens.ids),
        )

    async def _perplexity(self, request: PerplexityRequest) -> PerplexityAnswer:
        if request.is_one_text:
            scored = await self.score([request.text], [("text",)], request.context, request.include_eos)
        else:
            if len(request.texts) > self.limits.texts:
                raise FieldError(
                    ("texts",),
                    f"{len(request.texts)} texts were sent and one request may hold {self.limits.texts}; send fewer",
                )
            paths = [("texts", index) for index in range(len(request.texts))]
            scored = await self.score(request.texts, paths, request.context, request.include_eos)
        details = len(scored) + sum(len(text.tokens.ids) for text in scored)
        return await _aside(details, lambda: self._perplexity_answer(request, scored))

    @cached_property
    def _special(self) -> Mask:
        return _mask(self.vocabulary, self.vocabulary.is_special)

    @cached_property
    def _word(self) -> Mask:
        return _mask(self.vocabulary, self.vocabulary.is_word)

    async def _tokenise(self, path: tuple[str | int, ...], text: str, before: int, *, goes_on: bool) -> Tokens:
        """Tokens of one text; `FieldError` where they and the `before` ones are too many for a request.

        Where a text `goes_on`, the newline that ends it is an `<eos>`; else that is the one of the text's end.
        """
        room = self.limits.tokens - before
        tokens = await _aside(len(text), lambda: self.vocabulary.tokenise(text, final_newline=goes_on, most=room))
        if len(tokens) > room:
            raise FieldError(
                path,
                f"the request has more than {self.limits.tokens} tokens up to and with this text, which is as many as "
                "one request may have; send less text at a time",
            )
        return tokens

    def _after_eos(self, ids: Ids) -> Ids:
        return np.concatenate([np.array([self.vocabulary.eos_id], np.int32), ids])

    def _with_eos(self, tokens: Tokens, end: int) -> Tokens:
        """`tokens` and the `<eos>` of the text's end, which stands at `end` and is a word of its own."""
        word = int(tokens.words[-1]) + 1 if len(tokens.words) else 0
        return Tokens(
            ids=np.append(tokens.ids, np.int32(self.vocabulary.eos_id)),
            starts=np.append(tokens.starts, np.int32(end)),
            ends=np.append(tokens.ends, np.int32(end)),
            unknown=np.append(tokens.unknown, False),
            words=np.append(tokens.words, np.int32(word)),
        )

    async def _best(self, prompt: Ids, request: PredictRequest) -> tuple[Ids, Floats]:
        """The best `k` tokens that the request allows, and their log-probabilities."""
        unwanted = np.zeros_like(self._special) if request.include_special else self._special
        if not request.prefix and not request.words_only:
            enough = min(request.k + int(unwanted.sum()), len(self.vocabulary))
            ids, values = await self._engine.top_k(prompt, enough)
            shown = ~unwanted[ids]
            return ids[shown][: request.k], values[shown][: request.k]
        candidates = self.vocabulary.completions(request.prefix)
        allowed = ~unwanted[candidates]
        if request.words_only:
            allowed &= self._word[candidates]
        return scoring.best(await self._engine.log_probabilities(prompt), candidates[allowed], request.k)

    def _perplexity_answer(self, request: PerplexityRequest, scored: Sequence[ScoredText]) -> PerplexityAnswer:
        results = [
            text.answer(self.vocabulary, tokens=request.return_tokens, words=request.return_words) for text in scored
        ]
        total = score_of(scoring.total([text.likelihood for text in scored]))
        if request.is_one_text:
            return PerplexityAnswer(model=self.identity, results=results, total=total, perplexity=total.perplexity)
        return PerplexityAnswer(model=self.identity, results=results, total=total)


def _mask(vocabulary: Vocabulary, holds: Callable[[int], bool]) -> Mask:
    return np.fromiter((holds(token_id) for token_id in range(len(vocabulary))), np.bool_, len(vocabulary))


async def _aside(size: int, work: Callable[[], T]) -> T:
    """Do short work here and long work on another thread, so that other requests go on."""
    return work() if size <= LONG else await asyncio.to_thread(work)
