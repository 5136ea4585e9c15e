"""Writing on: one word after another, each drawn from what the model holds possible and read before the next.

Boundary: a state and settings in, words with their text out, one by one. Where the state is kept, and whether it moves,
is `app.sessions`' business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

import numpy as np

from app.reader import Reader
from app.sampling import Sampler
from app.schemas import FinishReason
from app.scoring import Floats, Ids
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


class Generation:
    """Draws words after `state`; what it has come to is in `ids`, `states` and `finish_reason`."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        sampler: Sampler,
        banned: Ids,
        banned_first: Ids,
        stops: Collection[int],
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
        """Rows [S] after the last words."""
        self.finish_reason = FinishReason.LENGTH

    async def words(self, state: Floats, most: int) -> AsyncIterator[Word]:
        """Up to `most` words, each once its text is certain, which is when the next one is known."""
        self.states.append(state)
        no_ids = np.empty(0, np.int32)
        result = await self._reader.read(state, no_ids, likely=True)
        waiting: tuple[int, float] | None = None
        while len(self.ids) < most:
            assert result.likely is not None
            likely = self._adapt(self.states[-1], result.likely)
            token_id = self._sampler.sample(likely, self._banned if self.ids else self._banned_first)
            if token_id in self._stops:
                self.finish_reason = FinishReason.STOP
                break
            log_probability = float(likely[token_id])
            text = self._writer.push(token_id)
            if waiting is not None:
                yield Word(waiting[0], text, waiting[1])
            waiting = token_id, log_probability
            result = await self._reader.read(self.states[-1], np.array([token_id], np.int32), likely=True)
            self.states.append(result.state)
            self.ids.append(token_id)
            self._reader.metrics.tokens_generated.inc()
        if waiting is not None:
            yield Word(waiting[0], self._writer.finish(), waiting[1])
