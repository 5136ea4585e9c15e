"""Text while it comes: its pieces are the whole, and go on from what was there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.writing import Writer
from model.conventions import Convention
from model.spelling import written
from model.vocabulary import Vocabulary
from tests.model.texts import plain, ptb, wikitext

EVERY = pytest.mark.parametrize("vocabulary", [wikitext(), ptb(), plain()], ids=["wikitext", "ptb", "plain"])


def pieces(writer: Writer, ids: list[int]) -> list[str]:
    return [*(writer.push(token_id) for token_id in ids), writer.finish()]


@EVERY
@given(data=st.data())
def test_pieces_join_to_the_text_of_all_tokens(vocabulary: Vocabulary, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=20))
    found = pieces(Writer(vocabulary), ids)
    assert "".join(found) == vocabulary.detokenise(ids)
    assert found[0] == ""
    for count in range(1, len(ids)):
        # A piece is out as soon as the next token is known.
        assert vocabulary.detokenise(ids[: count + 1]).startswith("".join(found[:count]))


@EVERY
@given(data=st.data())
def test_pieces_after_a_text_go_on_from_it(vocabulary: Vocabulary, data: st.DataObject) -> None:
    one = st.integers(0, len(vocabulary) - 1)
    before, ids = data.draw(st.lists(one, max_size=12)), data.draw(st.lists(one, min_size=1, max_size=8))
    whole = list(texts(vocabulary, before + ids))
    assert "".join(pieces(Writer(vocabulary, before), ids)) == "".join(whole[len(before) :])


@EVERY
@given(data=st.data())
def test_a_text_and_the_pieces_after_it_are_the_whole_but_for_a_mark_between_numbers(
    vocabulary: Vocabulary, data: st.DataObject
) -> None:
    marks, numbers = [0], [0]
    for token_id, word in enumerate(vocabulary.words):
        if word in ("'", '"', "–"):
            marks.append(token_id)
        elif word[0].isdecimal():
            numbers.append(token_id)
    one = st.integers(0, len(vocabulary) - 1) | st.sampled_from(marks) | st.sampled_from(numbers)
    before, ids = data.draw(st.lists(one, max_size=6)), data.draw(st.lists(one, min_size=1, max_size=4))
    known, found = vocabulary.detokenise(before), "".join(pieces(Writer(vocabulary, before), ids))
    whole = vocabulary.detokenise(before + ids)
    if whole == known + found:
        return
    number, mark, following = (vocabulary.word_of(token_id) for token_id in (*before[-2:], ids[0]))
    assert vocabulary.convention is not Convention.PTB
    assert mark in ("'", "–")
    assert number[0].isdecimal()
    assert following[0].isdecimal()
    assert known.endswith(f" {mark}")
    assert whole == known.removesuffix(f" {mark}") + mark + found


def texts(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    """The text of each token."""
    return list(written((vocabulary.word_of(token_id) for token_id in ids), vocabulary.convention))


def test_a_blank_belongs_to_the_word_that_needs_it_and_open_quotes_are_known() -> None:
    vocabulary = wikitext()

    def go_on(before: str, words: str) -> list[str]:
        ids = [[vocabulary.id_of(word) for word in part.split()] for part in (before, words)]
        return pieces(Writer(vocabulary, ids[0]), ids[1])

    assert go_on("The harbour", "lies north @-@ west .") == ["", " lies", " north", "-", "west", "."]
    assert go_on('was " well known', '" to sailors') == ["", '"', " to", " sailors"]
    assert go_on("", "The town") == ["", "The", " town"]
    assert go_on("The town", "") == [""]
    assert go_on("town <eos>", "The town") == ["", "The", " town"]


@pytest.mark.parametrize("mark", ["'", "–"])
def test_a_mark_before_a_number_keeps_the_blank_that_is_on_the_page_already(mark: str) -> None:
    vocabulary = wikitext()
    before, ids = ([vocabulary.id_of(word) for word in part.split()] for part in (f"5 {mark}", "7 km"))
    assert vocabulary.detokenise(before) == f"5 {mark}"
    assert pieces(Writer(vocabulary, before), ids) == ["", "7", " km"]
    assert vocabulary.detokenise(before + ids) == f"5{mark}7 km"
