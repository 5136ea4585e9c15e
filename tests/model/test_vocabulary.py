"""How a vocabulary reads and writes text: its laws over any text, offsets, and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.conventions import Convention
from model.vocabulary import Tokens, Vocabulary
from tests.model.texts import PLAIN_LINES, PTB_LINES, WIKITEXT_LINES, ids_of_lines, plain, ptb, readable, wikitext

WIKITEXT = wikitext()
PTB = ptb()
PLAIN = plain()
EVERY = pytest.mark.parametrize("vocabulary", [WIKITEXT, PTB, PLAIN], ids=["wikitext", "ptb", "plain"])

# Any code point, lone surrogates too, and what the conventions look for, with and without blanks between.
fragments = st.sampled_from(
    [
        *" \n\t\r\u00a0\u2028.,-'\"’“…–!$%<>@N1s\u00ad\u200b\u200d\ufeffﬁﬄ",
        "don't",
        "<unk>",
        "<eos>",
        "@-@",
        "U.S.",
        "north",
        "--",
        "Town",
        "company",
    ]
)
texts = st.lists(st.one_of(fragments, st.characters(exclude_categories=())), max_size=24).map("".join)


def shifted(tokens: Tokens, by: int) -> list[list[int]]:
    """All that a text became, its offsets moved."""
    arrays = (tokens.ids, tokens.starts + by, tokens.ends + by, tokens.unknown)
    return [array.tolist() for array in arrays]


@EVERY
@given(a=texts, b=texts, specials=st.booleans())
def test_a_cut_between_words_never_matters(vocabulary: Vocabulary, a: str, b: str, specials: bool) -> None:
    whole = vocabulary.tokenise(f"{a} {b}", specials=specials, final_newline=True)
    first = vocabulary.tokenise(a, specials=specials, final_newline=True)
    second = vocabulary.tokenise(b, specials=specials, final_newline=True)
    parts = [x + y for x, y in zip(shifted(first, 0), shifted(second, len(a) + 1), strict=True)]
    assert shifted(whole, 0) == parts


@EVERY
@given(text=texts)
def test_the_newline_that_ends_a_text_is_left_to_its_end(vocabulary: Vocabulary, text: str) -> None:
    on, ended = vocabulary.tokenise(text, final_newline=True), vocabulary.tokenise(text)
    blanks = text[len(text.rstrip()) :]
    dropped = 1 if "\n" in blanks else 0
    assert len(on) - len(ended) == dropped
    assert ended.ids.tolist() == on.ids[: len(ended)].tolist()
    assert on.ids[len(ended) :].tolist() == [vocabulary.eos_id] * dropped


@pytest.mark.parametrize("vocabulary", [WIKITEXT, PLAIN], ids=["wikitext", "plain"])
@given(text=texts)
def test_tokens_are_all_the_characters_between_blanks_in_order(vocabulary: Vocabulary, text: str) -> None:
    tokens = vocabulary.tokenise(text, final_newline=True)
    typed = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    assert "".join(typed) == "".join(character for character in text if character == "\n" or not character.isspace())
    assert all(typed)


@given(text=texts)
def test_ptb_tokens_leave_out_nothing_but_marks(text: str) -> None:
    tokens = PTB.tokenise(text, final_newline=True)
    ends = [0, *tokens.ends.tolist()]
    starts = [*tokens.starts.tolist(), len(text)]
    between = "".join(text[end:start] for end, start in zip(ends, starts, strict=True))
    assert len(between) + sum(tokens.ends - tokens.starts) == len(text)
    assert not any(map(str.isalnum, between))


@EVERY
@given(text=st.text(alphabet=st.characters(max_codepoint=127, exclude_characters="`"), max_size=40))
def test_a_token_of_plain_characters_is_what_was_typed(vocabulary: Vocabulary, text: str) -> None:
    tokens = vocabulary.tokenise(text)
    for token_id, start, end, unknown in zip(tokens.ids, tokens.starts, tokens.ends, tokens.unknown, strict=True):
        word, typed = vocabulary.word_of(token_id), text[start:end]
        if unknown:
            assert word == "<unk>" != typed
        elif word == "<eos>":
            assert typed == "\n"
        elif vocabulary.convention is Convention.PLAIN:
            assert typed == vocabulary.surface(token_id) or (typed == word == "@-@")
        elif vocabulary.convention is Convention.WIKITEXT:
            assert typed in (word, vocabulary.surface(token_id)) or set(typed) == {"."}
        elif word == "N":
            assert typed in ("N", "%") or any(map(str.isdecimal, typed))
        else:
            assert typed.lower() in (word, vocabulary.surface(token_id))


@EVERY
@given(text=texts)
def test_the_words_of_tokens_are_those_that_were_typed(vocabulary: Vocabulary, text: str) -> None:
    typed = [word for line in text.split("\n") for word in (*line.split(), "\n")][:-1]
    tokens = vocabulary.tokenise(text, final_newline=True)
    for start, end, word in zip(tokens.starts, tokens.ends, tokens.words, strict=True):
        assert text[start:end] in typed[word]


@pytest.mark.parametrize(
    ("vocabulary", "lines"),
    [(WIKITEXT, WIKITEXT_LINES), (PTB, PTB_LINES), (PLAIN, PLAIN_LINES)],
    ids=["wikitext", "ptb", "plain"],
)
def test_lines_of_the_corpus_tokenise_to_themselves(vocabulary: Vocabulary, lines: list[str]) -> None:
    text = "".join(f" {line} \n" for line in lines)
    tokens = vocabulary.tokenise(text, final_newline=True)
    assert tokens.ids.tolist() == ids_of_lines(vocabulary, lines)
    assert not tokens.unknown.any()


@EVERY
@given(data=st.data())
def test_any_row_of_known_words_tokenises_to_itself(vocabulary: Vocabulary, data: st.DataObject) -> None:
    words = [word for word in vocabulary.words if word != "<eos>"]
    row = data.draw(st.lists(st.sampled_from(words), max_size=12))
    assert vocabulary.tokenise(" ".join(row)).ids.tolist() == list(map(vocabulary.id_of, row))


@EVERY
@given(data=st.data())
def test_any_ids_can_be_written(vocabulary: Vocabulary, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=20))
    text = vocabulary.detokenise(ids)
    assert text.count("\n") == ids.count(vocabulary.eos_id)
    assert "  " not in text


def test_text_comes_back_from_its_tokens() -> None:
    for text in (
        'It was "well known" (to sailors) in 1990; about 1,200 ships a year.',
        "O'Brien didn't say the ship's name – the sailors' songs don't either!\n= The Harbour =\n20–30°C...",
    ):
        assert WIKITEXT.detokenise(WIKITEXT.tokenise(text, final_newline=True).ids) == text
    plain = PTB.detokenise(
        PTB.tokenise("The company's directors' report: $1,000 million!\nThey don't expect rain.").ids
    )
    assert plain == "the company's directors' report $N million\nthey don't expect <unk>"


def test_offsets_count_code_points() -> None:
    text = " 🙂 “north-west” e\u0301 \n1,200"
    tokens = WIKITEXT.tokenise(text)
    assert [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)] == [
        *("🙂", "“", "north", "-", "west", "”", "e\u0301", "\n", "1", ",", "200")
    ]
    assert tokens.starts.tolist() == [1, 3, 4, 9, 10, 14, 16, 19, 20, 21, 22]
    assert tokens.words.tolist() == [0, 1, 1, 1, 1, 1, 2, 3, 4, 4, 4]
    assert tokens.unknown.tolist() == [True, *[False] * 5, True, *[False] * 4]
    assert [array.dtype.name for array in (tokens.ids, tokens.starts, tokens.ends, tokens.unknown, tokens.words)] == [
        *("int32", "int32", "int32", "bool", "int32")
    ]


def test_a_newline_is_eos_and_a_final_one_adds_none() -> None:
    def tokens(text: str, **options: bool) -> list[str]:
        return [WIKITEXT.word_of(token_id) for token_id in WIKITEXT.tokenise(text, **options).ids]

    assert tokens("the\ntown") == tokens("the\ntown\n") == tokens("the \r\n town \n ") == ["the", "<eos>", "town"]
    assert tokens("the\n\n") == ["the", "<eos>"]
    assert tokens("the\n\n", final_newline=True) == ["the", "<eos>", "<eos>"]
    assert tokens("") == tokens(" \n\t") == tokens("\n") == []


def test_eos_in_the_text_is_the_token_only_where_specials_are_asked_for() -> None:
    assert readable(WIKITEXT, "the <eos> town") == "the [<eos>] town"
    tokens = WIKITEXT.tokenise("the<eos><eos>town <eos>", specials=True)
    assert [WIKITEXT.word_of(token_id) for token_id in tokens.ids] == ["the", "<eos>", "<eos>", "town", "<eos>"]
    assert tokens.starts.tolist() == [0, 3, 8, 13, 18]
    assert not tokens.unknown.any()


@EVERY
def test_a_million_characters_without_a_blank_are_one_unknown_token(vocabulary: Vocabulary) -> None:
    for characters in ("a", "\0", "\ud800", ".", "a,", "-a"):
        tokens = vocabulary.tokenise(characters * (1_000_000 // len(characters)))
        assert tokens.ids.tolist() == [vocabulary.unk_id]
        assert tokens.ends.tolist() == [1_000_000]
        assert tokens.unknown.tolist() == [True]


@EVERY
def test_a_typed_word_is_cut_up_to_its_thousandth_character(vocabulary: Vocabulary) -> None:
    longest = "," * 999 + "a"
    assert len(vocabulary.tokenise(longest)) > 0
    assert vocabulary.tokenise(longest).ends[-1] - vocabulary.tokenise(longest).starts[-1] == 1
    assert vocabulary.tokenise("," + longest).starts.tolist() == [0]
    assert vocabulary.tokenise("," + longest).ends.tolist() == [1001]


@EVERY
@given(text=texts, most=st.integers(0, 12))
def test_reading_leaves_off_after_the_word_with_a_token_too_many(vocabulary: Vocabulary, text: str, most: int) -> None:
    whole = vocabulary.tokenise(text)
    tokens = vocabulary.tokenise(text, most=most)
    if len(whole) <= most:
        assert tokens.ids.tolist() == whole.ids.tolist()
        return
    last_word = whole.words[most]
    kept = int((whole.words <= last_word).sum())
    assert shifted(tokens, 0) == [column[:kept] for column in shifted(whole, 0)]
    assert tokens.words.tolist() == whole.words[:kept].tolist()
