"""One choice of a completion: tokens drawn one by one, their text, and the arrays that tell of them.

Boundary: a state and settings in, pieces of one choice out. Which choices there are is `app.completions`' business.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np

from app.generation import never_first
from app.openai_schemas import Choice, CompletionRequest, Logprobs
from app.prompts import Prompt
from app.reader import Reader, aside
from app.sampling import Sampler
from app.schemas import FinishReason
from app.scoring import Floats, Ids, Likeliest, Scores
from app.session_schemas import MAX_SEED
from app.stop_texts import StopTexts
from app.writing import Writer
from model.ranking import top_k
from model.vocabulary import Vocabulary

T = TypeVar("T")

DEFAULT_MAX_TOKENS = 16

Tell = Callable[[Choice], None]
"""Takes a piece of a choice. Those of one choice come in order; the last has its `finish_reason`."""


@dataclass(frozen=True)
class Order:
    """What a request asks after each prompt, defaults filled in."""

    most: int
    """Tokens to write."""
    choices: int
    seed: int | None
    temperature: float
    top_k: int | None
    """How many likeliest words to draw from; None for all."""
    top_p: float
    stops: list[str]
    echo: bool
    top: int | None
    """How many likeliest tokens to show in each place; None for no arrays at all."""

    @classmethod
    def of(cls, request: CompletionRequest, vocabulary_size: int) -> Order:
        """What `request` asks."""
        return cls(
            most=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
            choices=request.n or 1,
            seed=request.seed,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_k=request.top_k if request.top_k is not None and request.top_k > 0 else None,
            top_p=1.0 if request.top_p is None else request.top_p,
            stops=request.stops,
            echo=bool(request.echo),
            top=None if request.logprobs is None else min(request.logprobs, vocabulary_size),
        )

    def seeds(self) -> list[int]:
        """A seed for each choice after one prompt: the one given and others that follow from it, or new ones."""
        if self.seed is None:
            return [secrets.randbelow(MAX_SEED + 1) for _ in range(self.choices)]
        others = np.random.SeedSequence(self.seed).generate_state(self.choices - 1, np.uint64) >> np.uint64(1)
        return [self.seed, *others.tolist()]

    def end(self, index: int, reason: FinishReason) -> Choice:
        """The last piece of a choice."""
        columns = None if self.top is None else Logprobs([], [], [], [])
        return Choice(index=index, text="", logprobs=columns, finish_reason=reason)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn, and what the arrays tell of it; `likeliest` is empty where there are none."""

    word: str
    log_probability: float
    likeliest: dict[str, float]


class ChoiceWriter:
    """Writes one choice after a prompt."""

    def __init__(self, reader: Reader, prompt: Prompt, order: Order, index: int, tell: Tell) -> None:
        self._reader = reader
        self._vocabulary = reader.vocabulary
        self._prompt = prompt
        self._order = order
        self._index = index
        self._tell = tell
        self._offset = len(prompt.text) if order.echo else 0
        self._after_blank = prompt.text[-1:].isspace()
        self.count = 0
        """Tokens that were told of so far."""

    async def write(self, state: Floats, likely: Floats, seed: int) -> None:
        """Write on from the row [S] and the log-probabilities [V] after the prompt."""
        order, eos_id = self._order, self._vocabulary.eos_id
        line = line_of(self._prompt.ids, eos_id)
        writer = await aside(len(line), lambda: Writer(self._vocabulary, line.tolist()))
        sampler = Sampler(order.temperature, order.top_k, order.top_p, seed)
        banned = np.array([self._vocabulary.unk_id], np.int32)
        text = StopTexts[Token](order.stops)
        at_start = not len(self._prompt.ids)
        token_id = sampler.sample(likely, never_first(self._vocabulary, banned, at_start=at_start))
        token, written = self._token(token_id, likely), 1
        writer.push(token_id)
        while token_id != eos_id and written < order.most:
            result = await self._reader.read(state, np.array([token_id], np.int32), likely=True)
            assert result.likely is not None
            state, likely = result.state, result.likely
            token_id = sampler.sample(likely, banned)
            # A token's text is certain once the next one is known.
            self._hand_on(*text.push(token, self._without_blank(writer.push(token_id))))
            if text.stopped:
                self._end(FinishReason.STOP)
                return
            token, written = self._token(token_id, likely), written + 1
        ended = token_id == eos_id
        self._hand_on(*text.push(token, "" if ended else self._without_blank(writer.finish())))
        if not text.stopped:
            self._hand_on(*text.finish())
        self._end(FinishReason.STOP if ended or text.stopped else FinishReason.LENGTH)

    def _token(self, token_id: int, likely: Floats) -> Token:
        self._reader.metrics.tokens_generated.inc()
        log_probability = float(likely[token_id])
        word = self._vocabulary.word_of(token_id)
        if not self._order.top:
            return Token(word, log_probability, {word: log_probability})
        ids, values = top_k(likely, self._order.top)
        likeliest = dict(zip(map(self._vocabulary.word_of, ids.tolist()), values.tolist(), strict=True))
        return Token(word, log_probability, likeliest | {word: log_probability})

    def _without_blank(self, text: str) -> str:
        """The text of the first token without the blank before it, where the prompt ends with one."""
        if self._after_blank and text:
            self._after_blank = False
            return text.removeprefix(" ")
        return text

    def _hand_on(self, text: str, tokens: Sequence[tuple[int, Token]]) -> None:
        """Tell of a piece that is certain."""
        self.count += len(tokens)
        columns = None
        if self._order.top is not None:
            columns = Logprobs(
                tokens=[token.word for _, token in tokens],
                token_logprobs=[token.log_probability for _, token in tokens],
                top_logprobs=[token.likeliest for _, token in tokens],
                text_offset=[self._offset + begins for begins, _ in tokens],
            )
        if text or (columns is not None and tokens):
            self._tell(Choice(index=self._index, text=text, logprobs=columns, finish_reason=None))

    def _end(self, reason: FinishReason) -> None:
        self._tell(self._order.end(self._index, reason))


def prompt_columns(vocabulary: Vocabulary, prompt: Prompt, scores: Scores, likeliest: Likeliest) -> Logprobs:
    """The arrays of a prompt's n tokens, of which the last m (n, or n - 1 for ids) were scored: `likeliest` [m, k]."""
    words = [vocabulary.word_of(token_id) for token_id in prompt.ids.tolist()]
    unscored = len(words) - len(scores.ranks)
    values = scores.log_probabilities.tolist()
    rows = zip(words[unscored:], values, likeliest.ids.tolist(), likeliest.log_probabilities.tolist(), strict=True)
    tops = [
        dict(zip(map(vocabulary.word_of, ids), best, strict=True)) | {word: value} for word, value, ids, best in rows
    ]
    return Logprobs(
        tokens=words,
        token_logprobs=[None] * unscored + values,
        top_logprobs=[None] * unscored + tops,
        text_offset=prompt.starts,
    )


def joined(pieces: Sequence[Choice]) -> Choice:
    """A choice of all its pieces."""
    columns = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    return Choice(
        index=pieces[0].index,
        text="".join(piece.text for piece in pieces),
        logprobs=Logprobs(
            tokens=_chain(it.tokens for it in columns),
            token_logprobs=_chain(it.token_logprobs for it in columns),
            top_logprobs=_chain(it.top_logprobs for it in columns),
            text_offset=_chain(it.text_offset for it in columns),
        )
        if columns
        else None,
        finish_reason=pieces[-1].finish_reason,
    )


def _chain(lists: Iterable[list[T]]) -> list[T]:
    return list(chain.from_iterable(lists))


def line_of(ids: Ids, eos_id: int) -> Ids:
    """The part of `ids` [n] that stands on the last line."""
    breaks = np.flatnonzero(ids == eos_id)
    return ids[breaks[-1] + 1 :] if len(breaks) else ids
