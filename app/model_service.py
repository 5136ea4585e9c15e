"""What the service does with a text of one request: predict the next word, and score.

Boundary: requests in, answers out; how text is read is `app.reader`, HTTP and the terminal are above. What outlives a
request is `app.sessions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from app import scoring
from app.admission import Admission, Claim
from app.errors import FieldError
from app.prefix_cache import PrefixCache
from app.reader import Reader, RequestLimits, aside
from app.reading import Reading
from app.scheduler import Scheduler
from app.schemas import (
    ModelIdentity,
    PerplexityAnswer,
    PerplexityRequest,
    PredictAnswer,
    PredictRequest,
)
from app.scored_text import ScoredText, score_of
from app.scoring import Scores
from app.served_model import ServedModel
from app.suggestions import Place, Suggestions
from model.vocabulary import Tokens, Vocabulary


class ModelService:
    """One model's answers. Refuses what is beyond the limits with `FieldError`."""

    def __init__(self, identity: ModelIdentity, reader: Reader, suggestions: Suggestions, admission: Admission) -> None:
        self.identity = identity
        self.reader = reader
        self.suggestions = suggestions
        self._admission = admission

    @classmethod
    async def start(
        cls, served: ServedModel, scheduler: Scheduler, cache: PrefixCache, admission: Admission, limits: RequestLimits
    ) -> ModelService:
        """Build the engine on the scheduler's thread, and warm up whatever a request needs."""
        engine = await scheduler.start()
        reader = Reader(served.vocabulary, engine.state_size, engine.hidden_size, scheduler, cache, limits)
        await reader.start()
        suggestions = Suggestions(served.vocabulary)
        for make in (lambda: served.vocabulary.tokenise("a"), *suggestions.warming()):
            began = perf_counter()
            await asyncio.to_thread(make)
            if admission.inside:  # Other models answer already, and their requests get as long a turn.
                await asyncio.sleep(perf_counter() - began)
        return cls(served.identity(engine), reader, suggestions, admission)

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's words."""
        return self.reader.vocabulary

    async def predict(self, request: PredictRequest) -> PredictAnswer:
        """The most likely next words after a text."""
        async with self._admission.admit() as claim:
            tokens = await self.reader.tokenise(("text",), request.text, 0, goes_on=True)
            claim(len(tokens))
            result = await self.reader.read_from_start(tokens.ids, likely=True)
            assert result.likely is not None
            place = Place(result.state, result.likely, tokens.ids)
            predictions = await self.suggestions.after(self.reader, place, request, claim)
            return PredictAnswer(model=self.identity, predictions=predictions, token_count=len(tokens))

    async def perplexity(self, request: PerplexityRequest) -> PerplexityAnswer:
        """The likelihood of one text or of many."""
        async with self._admission.admit() as claim:
            return await self._perplexity(request, claim)

    async def score(
        self,
        texts: Sequence[str],
        paths: Sequence[tuple[str | int, ...]],
        context: str = "",
        include_eos: bool = True,
        entropies: bool = False,
        claim: Claim = lambda _: None,
    ) -> list[ScoredText]:
        """Score each text afresh after `context`. `paths` says where each text stands in the request, for errors."""
        before = await self.reader.tokenise(("context",), context, 0, goes_on=True)
        count = len(before)
        tokens = []
        for path, text in zip(paths, texts, strict=True):
            tokens.append(await self.reader.tokenise(path, text, count, goes_on=False))
            count += len(tokens[-1])
        if include_eos:
            tokens = [self.with_eos(item, len(text)) for item, text in zip(tokens, texts, strict=True)]
        claim(count)
        scores = await self._scores(before, tokens, entropies)
        return [ScoredText(*parts) for parts in zip(texts, tokens, scores, strict=True)]

    async def _scores(self, context: Tokens, texts: Sequence[Tokens], entropies: bool) -> list[Scores]:
        """Scores of every token of each text, each read after the same context."""
        state = (await self.reader.read_from_start(context.ids)).state
        # A text's last token is scored and need not be read.
        readings = [Reading(state, text.ids[:-1], text.ids, entropy=entropies, urgent=False) for text in texts]
        results = await self.reader.scheduler.read_all(readings)
        return [result.scores for result in results]

    async def _perplexity(self, request: PerplexityRequest, claim: Claim) -> PerplexityAnswer:
        options = (request.context, request.include_eos, request.return_entropies, claim)
        if request.is_one_text:
            scored = await self.score([request.text], [("text",)], *options)
        else:
            most = self.reader.limits.texts
            if len(request.texts) > most:
                raise FieldError(
                    ("texts",),
                    f"{len(request.texts)} texts were sent and one request may hold {most}; send fewer",
                )
            paths = [("texts", index) for index in range(len(request.texts))]
            scored = await self.score(request.texts, paths, *options)
        details = len(scored) + sum(len(text.tokens) for text in scored)
        return await aside(details, lambda: self._perplexity_answer(request, scored))

    def _perplexity_answer(self, request: PerplexityRequest, scored: Sequence[ScoredText]) -> PerplexityAnswer:
        results = [
            text.answer(
                self.vocabulary,
                tokens=request.return_tokens,
                words=request.return_words,
                oov_penalty=request.oov_penalty,
            )
            for text in scored
        ]
        total = score_of(scoring.total([text.likelihood for text in scored]), request.oov_penalty)
        if request.is_one_text:
            return PerplexityAnswer(model=self.identity, results=results, total=total, perplexity=total.perplexity)
        return PerplexityAnswer(model=self.identity, results=results, total=total)

    def with_eos(self, tokens: Tokens, end: int) -> Tokens:
        """`tokens` and the `<eos>` of the text's end, which stands at `end` and is a word of its own."""
        word = int(tokens.words[-1]) + 1 if len(tokens.words) else 0
        return Tokens(
            ids=np.append(tokens.ids, np.int32(self.vocabulary.eos_id)),
            starts=np.append(tokens.starts, np.int32(end)),
            ends=np.append(tokens.ends, np.int32(end)),
            unknown=np.append(tokens.unknown, False),
            words=np.append(tokens.words, np.int32(word)),
        )
