"""Writing on: one word after another, each drawn from what the model holds possible and read before the next.

Boundary: a state and settings in, words with their text out, one by one. Where the state is kept, and whether it moves,
is `app.sessions`' business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.reader import Reader
from app.sampling import Sampler
from app.schemas import FinishReason
from app.scoring import Floats, Ids
from app.stop_texts import WholeTokens
from app.writing import Writer
from model.vocabulary import Vocabulary

Adapt = Callable[[Floats, Floats], Floats]


def never_first(vocabulary: Vocabulary, banned: Ids, *, at_start: bool) -> Ids:
    """What is never the first word: what is `banned`, and at a text's start also `<eos>`, which ends nothing there."""
    if at_start and len(vocabulary) > len(banned) + 1:
        return np.append(banned, np.int32(vocabulary.eos_id))
    return banned


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was drawn and read, and the text it adds, blanks included."""

    token_id: int
    text: str
    log_probability: float
    """Before the temperature it was drawn at."""


class _Drawn(NamedTuple):
    """A word that was drawn and read, and the row [S] after it."""

    token_id: int
    log_probability: float
    state: Floats


class Generation:
    """Draws words after `state`; what it has come to is in `ids`, `states` and `finish_reason`."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        sampler: Sampler,
        banned: Ids,
        banned_first: Ids,
        stops: Sequence[str],
        kept_states: int,
        adapt: Adapt,
    ) -> None:
        """`banned_first` are banned as the first word, `banned` as any other.

        `adapt` makes of a row [S], and of the model's log-probabilities [V] after it, those to draw by.
        """
        self._reader = reader
        self._writer = writer
        self._sampler = sampler
        self._banned = banned
        self._banned_first = banned_first
        self._stops = stops
        self._adapt = adapt
        self.ids: list[int] = []
        self.states: deque[Floats] = deque(maxlen=kept_states)
        """Rows [S] after the last words that were told."""
        self.finish_reason = FinishReason.LENGTH

    async def words(self, state: Floats, most: int) -> AsyncIterator[Word]:
        """Up to `most` words, each once it is certain: its text when the next one is known, and that no stop begins.

        The first words of what there would be without stops, up to the one in which a stop begins.
        """
        self.states.append(state)
        no_ids = np.empty(0, np.int32)
        result = await self._reader.read(state, no_ids, likely=True)
        tokens = WholeTokens[_Drawn](self._stops)
        waiting: _Drawn | None = None
        for index in range(most):
            assert result.likely is not None
            likely = self._adapt(state, result.likely)
            token_id = self._sampler.sample(likely, self._banned if index else self._banned_first)
            log_probability = float(likely[token_id])
            text = self._writer.push(token_id)
            if waiting is not None:
                for word in self._told(tokens.push(waiting, text)):
                    yield word
            if tokens.stopped:
                break
            result = await self._reader.read(state, np.array([token_id], np.int32), likely=True)
            state = result.state
            waiting = _Drawn(token_id, log_probability, state)
            self._reader.metrics.tokens_generated.inc()
        if waiting is not None and not tokens.stopped:
            for word in self._told([*tokens.push(waiting, self._writer.finish()), *tokens.finish()]):
                yield word
        self.finish_reason = FinishReason.STOP if tokens.stopped else FinishReason.LENGTH

    def _told(self, certain: Iterable[tuple[_Drawn, str]]) -> Iterator[Word]:
        """Words that are certain, one by one part of what this has come to."""
        for drawn, text in certain:
            self.ids.append(drawn.token_id)
            self.states.append(drawn.state)
            yield Word(drawn.token_id, text, drawn.log_probability)
