"""Text that ends before a stop text: what is handed on, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.stop_texts import StopTexts, WholeTokens

pieces = st.lists(st.text("ab ", max_size=4), max_size=8)
stops = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3)


@given(pieces=pieces, stops=stops)
def test_text_ends_before_the_first_stop_text_and_tokens_stand_where_they_begin(
    pieces: list[str], stops: list[str]
) -> None:
    text = StopTexts[int](stops)
    handed, tokens = "", []
    read = ""
    for number, piece in enumerate(pieces):
        more, found = text.push(number, piece)
        read += piece
        handed += more
        tokens += found
        if text.stopped:
            break
        # Nothing is kept back but what can still become a stop text.
        kept = read[len(handed) :]
        assert not kept or any(stop.startswith(kept) for stop in stops)
    if not text.stopped:
        more, found = text.finish()
        handed += more
        tokens += found
    whole = "".join(pieces)
    complete = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    end = min(complete)[1] if complete else len(whole)
    assert text.stopped == bool(complete)
    assert handed == whole[:end]
    starts = [
        sum(map(len, pieces[:number])) + len(piece) - len(piece.lstrip(" ")) for number, piece in enumerate(pieces)
    ]
    assert tokens == [(start, number) for number, start in enumerate(starts) if start < end or not complete]


@given(pieces=pieces, stops=stops)
def test_whole_tokens_are_those_that_end_before_the_first_stop_text(pieces: list[str], stops: list[str]) -> None:
    tokens, text = WholeTokens[int](stops), StopTexts[int](stops)
    taken, certain = [], ""
    for number, piece in enumerate(pieces):
        taken += tokens.push(number, piece)
        certain += text.push(number, piece)[0]
        assert tokens.stopped == text.stopped
        # As many as end in what is certain, and as soon as it is.
        ends = [len("".join(pieces[: place + 1])) for place in range(number + 1)]
        assert taken == [(place, pieces[place]) for place, end in enumerate(ends) if end <= len(certain)]
        if tokens.stopped:
            assert tokens.finish() == []
            return
    assert [*taken, *tokens.finish()] == list(enumerate(pieces))
