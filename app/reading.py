"""One sequence being read, and one call of the engine for several of them.

Boundary: packed states, ids and arrays; synchronous. Which readings share a call is `app.scheduler`'s business. What an
engine gives is checked here to be numbers, so that a NaN becomes an error and never an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from app.scoring import Floats, Ids, Likeliest, Scores, entropy
from model.errors import EngineError
from model.ranking import rank, top_k

if TYPE_CHECKING:
    from app.engines.base import Engine

FEW_ROWS = 64
"""Vectors up to which one run of the head gives everything that is wanted of each."""


def no_ids() -> Ids:
    """No ids at all."""
    return np.empty(0, np.int32)


@dataclass(slots=True, eq=False)
class Reading:
    """A sequence to read from a state, and how far it has come.

    `targets[j]` is scored by the vector after j ids (for j = 0 that of the state before any), so there may be one more
    target than ids. With `top`, at most the vocabulary's size, so many of the words likeliest in each target's place
    are found too. With `likely`, the log-probabilities after the last id are part of the result; with `hidden`, the
    hidden vectors before any id and after each, and with `rows` all log-probabilities in each target's place. With
    `entropy` its scores have entropies.
    """

    state: Floats
    """Packed row [S]: at first the one before `ids`, then the one after those read."""
    ids: Ids
    targets: Ids = field(default_factory=no_ids)
    top: int = 0
    likely: bool = False
    hidden: bool = False
    rows: bool = False
    entropy: bool = False
    urgent: bool = True
    """Whether somebody waits for the next word, rather than for a text's score."""
    done: int = field(default=0, init=False)
    """Ids read so far."""
    scored: int = field(default=0, init=False)
    """Targets scored so far."""
    scores: Scores = field(init=False)
    likeliest: Likeliest = field(init=False)
    vectors: Floats | None = field(init=False, default=None)
    whole: Floats | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        count = len(self.targets)
        entropies = np.empty(count, np.float32) if self.entropy else None
        self.scores = Scores(np.empty(count, np.float32), np.empty(count, np.int32), entropies)
        self.likeliest = Likeliest(np.empty((count, self.top), np.int32), np.empty((count, self.top), np.float32))

    @property
    def left(self) -> int:
        """Ids still to be read."""
        return len(self.ids) - self.done

    @property
    def whole_rows(self) -> bool:
        """Whether all log-probabilities in a target's place are looked at."""
        return bool(self.top or self.rows or self.entropy)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a reading: the row [S] after its last id, the scores of its targets, the `top` likeliest words in
    each one's place, and, where they were asked for, all log-probabilities [V] after the last of its n ids, the hidden
    vectors [n + 1, E], and all log-probabilities in each target's place [targets, V].
    """

    state: Floats
    scores: Scores
    likeliest: Likeliest
    likely: Floats | None
    vectors: Floats | None = None
    rows: Floats | None = None


def advance(engine: Engine, readings: Sequence[Reading], length: int) -> list[Result | None]:
    """Read `length` ids of each reading, which must have them left, and score what follows them.

    Returns the result of each reading that is finished, None for the others. Where the engine raises, no reading has
    moved. `length` 0 reads nothing and serves readings without any ids left.
    """
    before = np.stack([reading.state for reading in readings])
    start = hidden_of(before, engine.hidden_size)[:, None]
    after = before
    vectors = start
    if length:
        ids = np.stack([reading.ids[reading.done : reading.done + length] for reading in readings])
        hidden, after = map(_numbers, engine.advance(ids, np.full(len(readings), length, np.int32), before))
        vectors = np.concatenate([start, hidden], axis=1)
    likely = _read_out(engine, readings, vectors)
    results: list[Result | None] = []
    for row, reading in enumerate(readings):
        # A copy: a view would keep the whole batch in memory for as long as one state lives.
        reading.state = after[row].copy()
        if reading.hidden:
            if reading.vectors is None:
                reading.vectors = np.empty((len(reading.ids) + 1, engine.hidden_size), np.float32)
            reading.vectors[reading.done : reading.done + length + 1] = vectors[row]
        reading.done += length
        reading.scored = min(len(reading.targets), reading.done + 1)
        finished = Result(
            reading.state, reading.scores, reading.likeliest, likely.get(row), reading.vectors, reading.whole
        )
        results.append(None if reading.left else finished)
    return results


def _read_out(engine: Engine, readings: Sequence[Reading], vectors: Floats) -> dict[int, Floats]:
    """Score the targets that `vectors [B, 1 + length, E]` tell of; return the last log-probabilities where wanted."""
    length = vectors.shape[1] - 1
    places: list[tuple[int, int, int]] = []
    for row, reading in enumerate(readings):
        upto = min(len(reading.targets), reading.done + length + 1)
        places += [(row, position - reading.done, position) for position in range(reading.scored, upto)]
    ends = [row for row, reading in enumerate(readings) if reading.likely and reading.left == length]
    if len(places) + len(ends) <= FEW_ROWS:
        return _read_out_together(engine, readings, vectors, places, ends)
    # What is likeliest takes whole rows of log-probabilities, and so a few vectors at a time.
    whole = [place for place in places if readings[place[0]].whole_rows]
    for first in range(0, len(whole), FEW_ROWS):
        _read_out_together(engine, readings, vectors, whole[first : first + FEW_ROWS], [])
    if places := [place for place in places if not readings[place[0]].whole_rows]:
        rows, steps, _ = np.array(places).T
        targets = np.array([readings[row].targets[position] for row, _, position in places], np.int32)
        values, ranks = engine.score(vectors[rows, steps], targets)
        for (row, _, position), value, found in zip(places, _numbers(values), ranks, strict=True):
            readings[row].scores.log_probabilities[position] = value
            readings[row].scores.ranks[position] = found
    return dict(zip(ends, _numbers(engine.log_probabilities(vectors[ends, -1])), strict=True)) if ends else {}


def _read_out_together(
    engine: Engine,
    readings: Sequence[Reading],
    vectors: Floats,
    places: Sequence[tuple[int, int, int]],
    ends: Sequence[int],
) -> dict[int, Floats]:
    """The same by one run of the head, which reads the table of all words once."""
    wanted = [(row, step) for row, step, _ in places] + [(row, -1) for row in ends]
    if not wanted:
        return {}
    rows, steps = np.array(wanted).T
    likely = _numbers(engine.log_probabilities(vectors[rows, steps]))
    for (row, _, position), values in zip(places, likely, strict=False):
        reading = readings[row]
        target = int(reading.targets[position])
        reading.scores.log_probabilities[position] = values[target]
        reading.scores.ranks[position] = rank(values, target)
        if reading.scores.entropies is not None:
            reading.scores.entropies[position] = entropy(values)
        if reading.rows:
            if reading.whole is None:
                reading.whole = np.empty((len(reading.targets), len(values)), np.float32)
            reading.whole[position] = values
        if reading.top:
            best = top_k(values, reading.top)
            reading.likeliest.ids[position], reading.likeliest.log_probabilities[position] = best
    return dict(zip(ends, likely[len(places) :], strict=True))


def _numbers(values: Floats) -> Floats:
    """`values`; `EngineError` where one is NaN or infinite."""
    if not np.isfinite(values).all():
        raise EngineError("the engine computed NaN or infinity; its artefact or its device is damaged")
    return values


def hidden_of(states: Floats, size: int) -> Floats:
    """The last layer's h `[..., E]` of packed rows `[..., S]`, which is what the head reads."""
    return states[..., -2 * size : -size]
