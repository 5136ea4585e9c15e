"""One call of the engine for several readings: the same numbers however sequences are grouped and cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import reading as reading_module
from app.reading import Reading, Result, advance
from tests.app.fakes import NumpyEngine

SIZE = 23
ENGINE = NumpyEngine(SIZE)

sequences = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=12), min_size=1, max_size=6)


def as_ids(ids: list[int]) -> npt.NDArray[np.int32]:
    return np.array(ids, np.int32)


def state_after(ids: list[int]) -> npt.NDArray[np.float32]:
    """The packed row after ids, read one at a time from zeros."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for token_id in ids:
        _, state = ENGINE.step(token_id, state)
    return state


def likely_after(ids: list[int]) -> npt.NDArray[np.float32]:
    """Log-probabilities after ids (at least one)."""
    row: npt.NDArray[np.float32] = ENGINE.log_probabilities(state_after(ids)[None, : ENGINE.size])[0]
    return row


def finish(readings: list[Reading], lengths: st.DataObject | None = None) -> list[Result]:
    """Read to the end, a few steps at a time, whoever can go on together."""
    results: dict[int, Result] = {}
    while len(results) < len(readings):
        left = [reading for reading in readings if id(reading) not in results]
        step = min(left, key=lambda reading: reading.left).left
        if lengths is not None and step:
            step = lengths.draw(st.integers(1, step))
        batch = [reading for reading in left if (reading.left >= step if step else not reading.left)]
        for reading, result in zip(batch, advance(ENGINE, batch, step), strict=True):
            assert (result is None) == (reading.left > 0)
            if result is not None:
                results[id(reading)] = result
    return [results[id(reading)] for reading in readings]


@pytest.mark.parametrize("few_rows", [1, 64])
@settings(max_examples=30)
@given(before=st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=4), texts=sequences, data=st.data())
def test_grouping_and_cutting_change_no_number(
    few_rows: int, before: list[int], texts: list[list[int]], data: st.DataObject
) -> None:
    last_unread = data.draw(st.booleans())
    tops = [data.draw(st.integers(0, 3)) for _ in texts]
    seen = [data.draw(st.booleans()) for _ in texts]
    readings = [
        Reading(
            state_after(before), as_ids(ids[:-1] if last_unread else ids), as_ids(ids), top=top, likely=True,
            hidden=watched, rows=watched,
        )
        for ids, top, watched in zip(texts, tops, seen, strict=True)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_module, "FEW_ROWS", few_rows)
        results = finish(readings, data)
    for ids, top, watched, result in zip(texts, tops, seen, results, strict=True):
        read = before + (ids[:-1] if last_unread else ids)
        np.testing.assert_allclose(result.state, state_after(read), atol=1e-6)
        assert result.likely is not None
        np.testing.assert_allclose(result.likely, likely_after(read), atol=1e-5)
        rows = [likely_after(before + ids[:position]) for position in range(len(ids))]
        expected = [float(row[target]) for row, target in zip(rows, ids, strict=True)]
        assert result.scores.log_probabilities.tolist() == pytest.approx(expected, abs=1e-5)
        assert result.scores.ranks.tolist() == [
            1 + int((row > row[target]).sum()) for row, target in zip(rows, ids, strict=True)
        ]
        assert result.likeliest.ids.tolist() == [np.argsort(-row, kind="stable")[:top].tolist() for row in rows]
        best = [np.sort(row)[::-1][:top] for row in rows]
        np.testing.assert_allclose(result.likeliest.log_probabilities, np.reshape(best, (len(ids), top)), atol=1e-5)
        vectors = [state_after(read[:stop])[: ENGINE.size] for stop in range(len(before), len(read) + 1)]
        for found, wanted, whole in ((result.vectors, vectors, watched), (result.rows, rows, watched and bool(ids))):
            assert (found is not None) == whole
            if found is not None:
                np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)


def test_nothing_is_computed_that_is_not_wanted() -> None:
    engine = NumpyEngine(SIZE)
    state = np.zeros(engine.state_size, np.float32)
    [result] = advance(engine, [Reading(state, as_ids([1, 2]))], 2)
    assert engine.calls == [(1, 2)]
    assert engine.head_rows == 0
    assert result is not None
    assert result.likely is None
    assert len(result.scores.ranks) == 0


def test_what_is_likeliest_is_found_a_few_vectors_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "FEW_ROWS", 4)
    engine = NumpyEngine(SIZE)
    most = 0
    log_probabilities = engine.log_probabilities

    def counted(hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        nonlocal most
        most = max(most, len(hidden))
        return log_probabilities(hidden)

    monkeypatch.setattr(engine, "log_probabilities", counted)
    ids = as_ids(list(range(SIZE)))
    [result] = advance(engine, [Reading(state_after([1]), ids[:-1], ids, top=2)], SIZE - 1)
    assert result is not None
    assert (most, engine.head_rows) == (4, SIZE)
    # What is likeliest is equal to the bit to the score where it is the target.
    hits = result.likeliest.ids[:, 0] == ids
    assert result.likeliest.log_probabilities[hits, 0].tolist() == result.scores.log_probabilities[hits].tolist()


def test_the_last_vector_alone_gives_the_next_words() -> None:
    engine = NumpyEngine(SIZE)
    [result] = advance(engine, [Reading(state_after([3, 4]), as_ids([]), likely=True)], 0)
    assert engine.calls == []
    assert engine.head_rows == 1
    assert result is not None
    assert result.likely is not None
    np.testing.assert_allclose(result.likely, likely_after([3, 4]), atol=1e-6)


def test_a_call_that_fails_moves_no_reading() -> None:
    def fail() -> None:
        raise MemoryError

    engine = NumpyEngine(SIZE, before=fail)
    reading = Reading(state_after([1]), as_ids([2, 3]), as_ids([2, 3]), likely=True)
    with pytest.raises(MemoryError):
        advance(engine, [reading], 1)
    assert (reading.left, reading.scored) == (2, 0)
    assert reading.state.tolist() == state_after([1]).tolist()


def test_a_result_keeps_one_state_and_not_its_batch() -> None:
    readings = [Reading(state_after([row]), as_ids([1])) for row in range(4)]
    for result in advance(ENGINE, readings, 1):
        assert result is not None
        assert result.state.base is None
