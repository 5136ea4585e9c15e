"""How tokens are written as text."""

from __future__ import annotations

from itertools import islice

import pytest

from model.conventions import Convention
from model.spelling import surface, written


def text(words: str, convention: Convention = Convention.WIKITEXT) -> str:
    return "".join(written(words.split(), convention))


@pytest.mark.parametrize(
    ("tokens", "plain"),
    [
        ("The town , near St. Agnes .", "The town, near St. Agnes."),
        ("a ( 2 mi ) b [ sic ] c", "a (2 mi) b [sic] c"),
        ("3 @.@ 5 km 1 @,@ 200 north @-@ west", "3.5 km 1,200 north-west"),
        ("$ 5 and 10 % of # 1 and a $ sign", "$5 and 10% of #1 and a $ sign"),
        ("20 – 30 and then – as 5 : 30 came : 5", "20–30 and then – as 5:30 came: 5"),
        ("and / or 10 ° C , 5 ° north", "and/or 10°C, 5° north"),
        ("wait ... <unk> ; <unk> !", "wait... <unk>; <unk>!"),
        ("= = X = =", "= = X = ="),
    ],
)
def test_marks_touch_the_words_they_belong_to(tokens: str, plain: str) -> None:
    assert text(tokens) == plain


@pytest.mark.parametrize(
    ("tokens", "plain"),
    [
        ('He said , " come in " , and " out " .', 'He said, "come in", and "out".'),
        ("' It is ' he said", "'It is' he said"),
        ("The sailors ' songs didn 't end , O 'Brien 's did", "The sailors' songs didn't end, O'Brien's did"),
        ("James 's ' cat '", "James's 'cat'"),
        ("the ' 90s and the ' cat '", "the '90s and the 'cat'"),
        ("it ’ s “ so ”", "it’s “so”"),
        ('" open <eos> " new "', '"open\n"new"'),
    ],
)
def test_quotes_are_paired_along_a_line_and_apostrophes_are_not_quotes(tokens: str, plain: str) -> None:
    assert text(tokens) == plain


def test_a_newline_stands_for_eos_and_has_no_blanks_beside_it() -> None:
    assert text("a <eos> <eos> b <eos>") == "a\n\nb\n"
    assert text("") == ""


@pytest.mark.parametrize(
    ("tokens", "plain"),
    [
        ("the company 's plan does n't say they 've", "the company's plan doesn't say they've"),
        ("the directors ' report of the '80s", "the directors' report of the '80s"),
        ("$ N million and us$ N or N N", "$N million and us$N or N N"),
        ("cities\\/abc \\*", "cities/abc *"),
    ],
)
def test_treebank_clitics_touch_their_word_and_currency_its_number(tokens: str, plain: str) -> None:
    assert text(tokens, Convention.PTB) == plain


def test_text_is_written_while_words_arrive_one_word_behind() -> None:
    read = []

    def arriving() -> object:
        for word in ("in", "$", "5", "@,@", "000", "."):
            read.append(word)
            yield word

    pieces = written(arriving(), Convention.WIKITEXT)  # type: ignore[arg-type]
    assert list(islice(pieces, 2)) == ["in", " $"]
    assert read == ["in", "$", "5"]
    assert list(pieces) == ["5", ",", "000", "."]


def test_a_single_word_is_shown_as_a_person_writes_it() -> None:
    assert [surface(word, Convention.WIKITEXT) for word in ("@-@", "@,@", "@.@", "'t", "town")] == [
        "-",
        ",",
        ".",
        "'t",
        "town",
    ]
    assert [surface(word, Convention.PTB) for word in ("mgm\\/ua", "n't", "@-@")] == ["mgm/ua", "n't", "@-@"]
