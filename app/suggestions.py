"""Which next words are shown, of all that the model holds possible.

Boundary: a row of log-probabilities in, and those of a user's own words, predictions out; never renormalised.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app import scoring
from app.personal import NO_WORDS, OwnWords
from app.schemas import Prediction, Suggesting
from app.scoring import Floats, Ids
from model.conventions import UNK
from model.ranking import top_k
from model.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]


class Suggestions:
    """Chooses words of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def warming(self) -> tuple[Callable[[], object], ...]:
        """What makes, bit by bit, what is otherwise made when it is first needed.

        With a large vocabulary each takes some hundredths of a second, in which Python does nothing else.
        """
        complete = self._vocabulary.completions
        return lambda: self._special_count, lambda: self._word, lambda: complete("a"), lambda: complete("A")

    def best(self, likely: Floats, wanted: Suggesting, own: OwnWords = NO_WORDS) -> list[Prediction]:
        """The likeliest words by `likely` [V] that a request wants to see, best first, ties by lower id.

        A user's `own` words, which the vocabulary lacks, stand among them, after those as likely.
        """
        ids, values = self._best(likely, wanted.k, wanted.prefix, wanted.words_only, wanted.include_special)
        shown = [
            _prediction(self._vocabulary.surface(token_id), self._vocabulary.word_of(token_id), value)
            for token_id, value in zip(ids.tolist(), values.astype(np.float64).tolist(), strict=True)
        ]
        shown += [
            _prediction(spelling, UNK, value)
            for spelling, value in zip(own.spellings, own.log_probabilities, strict=True)
            if self._vocabulary.begins(spelling, wanted.prefix)
        ]
        return sorted(shown, key=lambda prediction: -prediction.log_probability)[: wanted.k] if own.spellings else shown

    def _best(self, likely: Floats, k: int, prefix: str, words_only: bool, include_special: bool) -> tuple[Ids, Floats]:
        if not prefix and not words_only:
            if include_special:
                return top_k(likely, k)
            ids, values = top_k(likely, k + self._special_count)
            shown = ~self._special[ids]
            return ids[shown][:k], values[shown][:k]
        candidates = self._vocabulary.completions(prefix)
        if not include_special:
            candidates = candidates[~self._special[candidates]]
        if words_only:
            candidates = candidates[self._word[candidates]]
        return scoring.best(likely, candidates, k)

    @cached_property
    def _special(self) -> Mask:
        return self._mask(self._vocabulary.is_special)

    @cached_property
    def _special_count(self) -> int:
        return int(self._special.sum())

    @cached_property
    def _word(self) -> Mask:
        return self._mask(self._vocabulary.is_word)

    def _mask(self, holds: Callable[[int], bool]) -> Mask:
        size = len(self._vocabulary)
        return np.fromiter(map(holds, range(size)), np.bool_, size)


def _prediction(word: str, token: str, value: float) -> Prediction:
    return Prediction(word=word, token=token, probability=float(np.exp(value)), log_probability=value)
