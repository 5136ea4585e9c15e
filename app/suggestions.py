"""Which next words are shown, of all that the model holds possible.

Boundary: a place in a text in, predictions out; never renormalised. A word that the model reads in several tokens, as
"don't" in `don` and "'t", has the product of their probabilities. What is typed of a word is read first where it is
more than a part of one token, and of the words found so the likeliest few are read to see how they may go on ("I'm"):
all in one call of the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app import scoring
from app.admission import Claim
from app.personal import NO_WORDS, OwnWords
from app.reader import Reader
from app.reading import Reading, Result
from app.schemas import Prediction, Suggesting
from app.scoring import Floats, Ids
from app.writing import Writer
from model.beginnings import Beginning, Beginnings, as_typed
from model.conventions import folded
from model.conventions.base import PLAIN_MARKS
from model.ranking import top_k
from model.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]
Adapted = Callable[[Floats, Floats], tuple[Floats, OwnWords]]

MOST_STEMS = 3
"""Of the words found, so many of the likeliest are read to see how they may go on."""
LIKELY_ENOUGH = 0.05
"""How often a word must go on so for that to be shown where nothing of it is typed yet."""
MOST_BEFORE = 64
"""Latest tokens by which it is known how the next one is written."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where words are suggested."""

    state: Floats
    """Packed row [S] there."""
    likely: Floats
    """Log-probabilities [V] of what comes next."""
    before: Ids
    """Ids up to there, at least the latest."""
    own: OwnWords = NO_WORDS
    """A user's words, which the vocabulary lacks."""
    adapted: Adapted = lambda _, likely: (likely, NO_WORDS)
    """Makes `likely` and `own` of a later place, of a hidden vector [E] and the model's log-probabilities [V] there."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A word that may come, and the tokens it would be read as."""

    word: str
    ids: tuple[int, ...]
    log_probability: float


_WHOLE = Beginning((), "", "")


class Suggestions:
    """Chooses words of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._beginnings = Beginnings(vocabulary)

    def warming(self) -> tuple[Callable[[], object], ...]:
        """What makes, bit by bit, what is otherwise made when it is first needed.

        With a large vocabulary each takes some hundredths of a second, in which Python does nothing else.
        """
        complete = self._vocabulary.completions
        return (
            lambda: self._special_count,
            lambda: self._word,
            lambda: complete("a"),
            lambda: complete("A"),
            lambda: self._beginnings.clitics,
        )

    async def after(self, reader: Reader, place: Place, wanted: Suggesting, claim: Claim) -> list[Prediction]:
        """The likeliest words at a place that a request wants to see, best first, ties by lower id.

        A user's own words stand among them, after those as likely. `claim` is told of tokens before they are read.
        """
        if (prefix := folded(wanted.prefix)) != wanted.prefix:
            wanted = wanted.model_copy(update={"prefix": prefix})
        writer = Writer(self._vocabulary, place.before[-MOST_BEFORE:].tolist())
        ids, values = self._best(place.likely, wanted.k, wanted.prefix, wanted.words_only, wanted.include_special)
        found = [
            _Found(as_typed(self._vocabulary.surface(token_id), wanted.prefix), (token_id,), value)
            for token_id, value in zip(ids.tolist(), values.astype(np.float64).tolist(), strict=True)
        ]
        if wanted.prefix:
            found += await self._joined(reader, place, wanted, found, writer, claim)
        found += self._own(_WHOLE, wanted.prefix, place.own, 0.0)
        best: dict[str, _Found] = {}
        for it in sorted(found, key=lambda it: -it.log_probability):
            best.setdefault(it.word if wanted.prefix else f"{it.word} {it.ids}", it)
        return [self._prediction(it, writer) for it in list(best.values())[: wanted.k]]

    async def _joined(
        self, reader: Reader, place: Place, wanted: Suggesting, found: list[_Found], writer: Writer, claim: Claim
    ) -> list[_Found]:
        """Words of several tokens. None of them is likelier than its first token, which saves reading in vain."""
        least = found[-1].log_probability if len(found) == wanted.k else -np.inf
        stems = {
            it.ids: Beginning(it.ids, it.word, "")
            for it in found
            if it.log_probability > least and self._vocabulary.is_word(it.ids[0])
        }
        typed = {it.ids: it for it in self._beginnings.of(wanted.prefix)}
        beginnings = dict(list(stems.items())[: MOST_STEMS if len(self._beginnings.clitics) else 0]) | typed
        if not beginnings:
            return []
        claim(sum(map(len, beginnings)))
        eos = self._vocabulary.eos_id
        readings = [
            Reading(place.state, np.array(ids, np.int32), np.array([*ids, eos], np.int32), hidden=True, rows=True)
            for ids in beginnings
        ]
        results = await reader.scheduler.read_all(readings)
        return [
            word
            for (ids, beginning), result in zip(beginnings.items(), results, strict=True)
            for word in self._ends(place, beginning, result, wanted, begun=ids in typed)
            if self._is_one_word(word, beginning, writer)
        ]

    def _ends(
        self, place: Place, beginning: Beginning, result: Result, wanted: Suggesting, *, begun: bool
    ) -> Iterator[_Found]:
        """How a beginning, which `result` has read, may go on: where that is not `begun`, by a likely clitic alone."""
        assert result.vectors is not None
        assert result.rows is not None
        likely, own, before = place.likely, place.own, 0.0
        for index, token_id in enumerate(beginning.ids, 1):
            before += float(likely[token_id])
            likely, own = place.adapted(result.vectors[index], result.rows[index])
        rest = beginning.rest.translate(PLAIN_MARKS)
        if begun:
            candidates = self._vocabulary.completions(rest)
        else:
            candidates = self._beginnings.clitics
            candidates = candidates[likely[candidates] >= math.log(LIKELY_ENOUGH)]
        candidates = candidates[~self._special[candidates]]
        if wanted.words_only or not rest:
            candidates = candidates[self._word[candidates]]
        ids, values = scoring.best(likely, candidates, wanted.k)
        for token_id, value in zip(ids.tolist(), values.astype(np.float64).tolist(), strict=True):
            word = as_typed(beginning.written + self._vocabulary.surface(token_id), wanted.prefix)
            yield _Found(word, (*beginning.ids, token_id), before + value)
        yield from self._own(beginning, rest if begun else "'", own, before)

    def _is_one_word(self, found: _Found, beginning: Beginning, writer: Writer) -> bool:
        """Whether a word is read as its tokens, and where its last one is not begun yet, written without a blank."""
        if not self._beginnings.is_read_as(found.word, found.ids):
            return False
        *first, last = map(self._vocabulary.word_of, found.ids)
        if found.ids[-1] == self._vocabulary.unk_id:
            last = found.word[len(beginning.written) :].translate(PLAIN_MARKS)
        return bool(beginning.rest) or not writer.ahead([*first, last])[-1].startswith(" ")

    def _own(self, beginning: Beginning, rest: str, own: OwnWords, before: float) -> Iterator[_Found]:
        """A user's own words, or ends of them, that begin with `rest`."""
        for spelling, value in zip(own.spellings, own.log_probabilities, strict=True):
            if self._vocabulary.begins(spelling, rest):
                yield _Found(beginning.written + spelling, (*beginning.ids, self._vocabulary.unk_id), before + value)

    def _best(self, likely: Floats, k: int, prefix: str, words_only: bool, include_special: bool) -> tuple[Ids, Floats]:
        if not prefix and not words_only:
            if include_special:
                return top_k(likely, k)
            ids, values = top_k(likely, k + self._special_count)
            shown = ~self._special[ids]
            return ids[shown][:k], values[shown][:k]
        candidates = self._vocabulary.completions(prefix)
        if not len(candidates):
            candidates = self._vocabulary.completions(prefix.translate(PLAIN_MARKS))
        if not include_special:
            candidates = candidates[~self._special[candidates]]
        if words_only:
            candidates = candidates[self._word[candidates]]
        return scoring.best(likely, candidates, k)

    def _prediction(self, found: _Found, writer: Writer) -> Prediction:
        text = writer.ahead(map(self._vocabulary.word_of, found.ids))[0]
        if found.ids != (self._vocabulary.eos_id,):
            text = f" {found.word}" if text.startswith(" ") else found.word
        return Prediction(
            word=found.word,
            text=text,
            token=" ".join(map(self._vocabulary.word_of, found.ids)),
            probability=float(np.exp(found.log_probability)),
            log_probability=found.log_probability,
        )

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
