"""What a personal session remembers: bounded, as it was at every place it can go back to, and the same as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.personal import Adaptation, mixed, shares
from app.sessions.cursor import LONGEST_TAIL
from app.sessions.memory import LONGEST_OWN, MOST_OWN, PARTS, Memory, OwnWord, Recall, own_words_of
from model.conventions import Convention
from model.vocabulary import Vocabulary

SIZE, WINDOW = 4, 10
VOCABULARY = Vocabulary(["<unk>", "<eos>", "the", "boat", "of", "@-@"], Convention.WIKITEXT)


def vectors(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (count, SIZE)).astype(np.float32)


def learnt(count: int, own: Sequence[OwnWord] = ()) -> Memory:
    """After so many tokens."""
    ids = np.arange(count, dtype=np.int32) % len(VOCABULARY)
    return Memory.nothing(SIZE).learn(vectors(count), ids, 0).note(own, 0)


def same(found: Memory, expected: Memory) -> None:
    for name in ("vectors", "words", "places", "own_places"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert list(found.own) == list(expected.own)


def test_words_outside_the_vocabulary_are_remembered_as_typed_and_nothing_else() -> None:
    text = f"the Boat of Zanzibarra, {'x' * LONGEST_OWN} {'y' * (LONGEST_OWN + 1)} §§ <unk> sea-boat naïve\n1897"
    found = own_words_of(text, VOCABULARY.tokenise(text))
    assert [word.spelling for word in found] == ["Boat", "Zanzibarra", "x" * LONGEST_OWN, "sea-boat", "naïve", "1897"]
    ids = VOCABULARY.tokenise(text).ids
    assert {int(ids[word.index]) for word in found} == {VOCABULARY.unk_id}


@given(count=st.integers(0, 60), back=st.integers(0, 60), window=st.integers(1, 40))
def test_back_at_an_earlier_place_the_window_is_what_it_was_there(count: int, back: int, window: int) -> None:
    own = [OwnWord(place, f"w{place}") for place in range(0, count, 3)]
    place = max(0, count - back)
    cut = learnt(count, own).cut(window).until(place)
    expected = learnt(place, [word for word in own if word.index < place]).cut(window)
    assert cut.words[-window:].tolist() == expected.words[-window:].tolist()
    assert cut.places[-window:].tolist() == expected.places[-window:].tolist()
    assert list(cut.own) == list(expected.own)


def test_however_much_is_typed_so_much_is_kept_and_no_more() -> None:
    own = [OwnWord(place, "o" * LONGEST_OWN) for place in range(5000)]
    memory = learnt(5000, own).cut(WINDOW)
    assert memory.vectors.shape == (WINDOW + LONGEST_TAIL, SIZE)
    assert memory.places[-1] == 5000
    assert len(memory.own) == len(memory.own_places) == MOST_OWN + LONGEST_TAIL
    largest = 12 + (WINDOW + LONGEST_TAIL) * (SIZE + 8) + (MOST_OWN + LONGEST_TAIL) * (4 + LONGEST_OWN + 1)
    assert len(memory.to_bytes()) <= largest
    assert memory.told(WINDOW).model_dump() == {"tokens": WINDOW, "own_words": 1}


def test_vectors_are_kept_to_half_a_part_of_127() -> None:
    memory = Memory.nothing(SIZE).learn(vectors(50), np.zeros(50, np.int32), 0)
    np.testing.assert_allclose(memory.vectors / PARTS, vectors(50), atol=0.5001 / PARTS)
    beyond = Memory.nothing(SIZE).learn(np.full((1, SIZE), 1.5, np.float32), np.zeros(1, np.int32), 0)
    assert beyond.vectors.tolist() == [[PARTS] * SIZE]


@given(count=st.integers(0, 30), own=st.lists(st.sampled_from(["Zog", "naïve", "日本"]), max_size=5))
def test_bytes_bring_back_the_same(count: int, own: list[str]) -> None:
    memory = learnt(count).note([OwnWord(place, word) for place, word in enumerate(own)], count)
    same(Memory.from_bytes(memory.to_bytes()), memory)


def test_bytes_that_were_cut_or_lengthened_are_no_memory() -> None:
    data = learnt(5, [OwnWord(1, "Zog"), OwnWord(3, "Marlow")]).to_bytes()
    for stop in [*range(data.index(b"Marlow"))]:
        with pytest.raises(ValueError, match=r".*"):
            Memory.from_bytes(data[:stop])
    for wrong in (data + b"\nmore", learnt(5).to_bytes() + b"x", b"\xff" * 12 + data[12:], data[:-1] + b"\xff"):
        with pytest.raises(ValueError, match=r".*"):
            Memory.from_bytes(wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"words": np.array([0, 1, 6], np.int32)},
        {"words": np.array([0, -1, 2], np.int32)},
        {"places": np.array([1, 3, 2], np.int32)},
        {"places": np.array([0, 1, 2], np.int32)},
        {"places": np.array([1, 2, 9], np.int32)},
        {"own_places": np.array([2, 2], np.int32)},
        {"own_places": np.array([2, 9], np.int32)},
        {"own": ["two words", "Zog"]},
        {"own": ["", "Zog"]},
        {"own": ["x" * (LONGEST_OWN + 1), "Zog"]},
        {"vectors": np.zeros((3, SIZE + 1), np.int8)},
    ],
)
def test_what_no_session_can_remember_is_not_sound(changes: dict[str, Any]) -> None:
    memory = learnt(3, [OwnWord(1, "Zog"), OwnWord(2, "Zog")])
    assert memory.is_sound(SIZE, len(VOCABULARY), 3)
    assert not replace(memory, **changes).is_sound(SIZE, len(VOCABULARY), 3)


def test_the_cache_looks_back_on_its_window_and_own_words_on_all_that_are_kept() -> None:
    given_ = Adaptation(window=3, weight=0.4, theta=1.5)
    ids = np.array([2, 0, 3, 0, 4, 0], np.int32)
    memory = Memory.nothing(SIZE).learn(vectors(6), ids, 0).note([OwnWord(1, "Zog"), OwnWord(3, "Marlow")], 0)
    likely = np.log(np.full(len(VOCABULARY), 1 / len(VOCABULARY), np.float32))
    query = vectors(1, seed=9)[0]
    recall = Recall(memory, given_, 0)
    seen = memory.vectors[3:].astype(np.float32) / np.float32(PARTS)
    share = shares(seen, query, 1.5)
    expected = mixed(likely, ids[3:], share, 0.4)
    np.testing.assert_allclose(recall.mixed(query, likely), expected)
    before = shares(memory.vectors[1:4].astype(np.float32) / np.float32(PARTS), query, 1.5)
    np.testing.assert_allclose(recall.mixed(query, likely, 4), mixed(likely, ids[1:4], before, 0.4))
    values, own = recall.suggested(query, likely)
    assert own.spellings == ["Zog", "Marlow"]
    # Zog was typed before the window, Marlow is its first token; the last is of a word that was not kept.
    model = 0.6 / len(VOCABULARY)
    assert np.exp(own.log_probabilities).tolist() == pytest.approx([model / 4, model / 4 + 0.4 * share[0]])
    assert np.exp(values[0]) == pytest.approx(model / 2 + 0.4 * share[2], rel=1e-5)
    assert values[1:].tolist() == expected[1:].tolist()
