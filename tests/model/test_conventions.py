"""How typed words become tokens under each convention, case by case."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.conventions import Convention, splitter, words_of
from model.vocabulary import Vocabulary
from tests.model.texts import plain, ptb, readable, wikitext

WIKITEXT = wikitext()
PTB = ptb()
PLAIN = plain()


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("town, town; town: town! town?", "town , town ; town : town ! town ?"),
        ("(2 mi) [sic]", "( 2 mi ) [ sic ]"),
        ('It was "well known".', 'It was " well known " .'),
        ("north-west north-west-year", "north @-@ west north @-@ west @-@ year"),
        ("3.5 1,200 5,000.7", "3 @.@ 5 1 @,@ 200 5 @,@ 000 @.@ 7"),
        ("$5 10% #1 20–30 10°C km²", "$ 5 10 % # 1 20 – 30 10 ° C km ²"),
        ("and/or café—lait", "and / or café — lait"),
        ("===", "= = ="),
    ],
)
def test_wikitext_cuts_marks_from_words_and_joins_what_is_one_word(typed: str, tokens: str) -> None:
    assert readable(WIKITEXT, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("didn't ship's it's they've I'm", "didn 't ship 's it 's they 've I 'm"),
        ("O'Brien's", "O 'Brien 's"),
        ("sailors' songs", "sailors ' songs"),
        ("'It is'", "' It is '"),
        ("rock'n'roll", "rock 'n'roll"),
        ("O'Flaherty", "O ['Flaherty]"),
        ("said'the", "said ' the"),
        ("1990's", "1990 's"),
    ],
)
def test_wikitext_cuts_before_an_apostrophe_within_a_word(typed: str, tokens: str) -> None:
    assert readable(WIKITEXT, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("town.", "town ."),
        ("1990.", "1990 ."),
        ("St. Agnes.", "St. Agnes ."),
        ("(U.S.)", "( U.S. )"),
        ("U.S.-U.K.", "U.S. @-@ U.K."),
        ("Mr.Tarn", "Mr. Tarn"),
        ("No.7", "No. 7"),
        ("(Amazon.com).", "( Amazon.com ) ."),
        ("www.harbour.org.", "[www.harbour.org] ."),
        ("town.The", "town . The"),
        ("wait...", "[wait] ..."),
        ("so.....", "[so] ..."),
    ],
)
def test_wikitext_asks_the_vocabulary_whether_a_period_belongs_to_its_word(typed: str, tokens: str) -> None:
    assert readable(WIKITEXT, typed) == tokens


def test_wikitext_keeps_a_joiner_alone_though_a_known_word_ends_in_a_hyphen() -> None:
    assert readable(WIKITEXT, "first-year first- (first-") == "[first] @-@ year first- ( first-"


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("(<unk>)", "( <unk> )"),
        ("<unk>'s <unk>-west <unk>,000 <unk>.5", "<unk> 's <unk> @-@ west <unk> @,@ 000 <unk> @.@ 5"),
        ("(<formula>)", "( <formula> )"),
        ("<eos> the<eos>", "[<eos>] the [<eos>]"),
    ],
)
def test_wikitext_reads_the_corpus_own_marks_within_a_word(typed: str, tokens: str) -> None:
    assert readable(WIKITEXT, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("“well known”", '" well known "'),
        ("didn’t", "didn 't"),
        ("‘It is’", "' It is '"),
        ("north‐west", "north @-@ west"),
        ("town…", "town ..."),
        ("cafe\u0301", "café"),
        ("town🙂👍🏽", "town [🙂👍🏽]"),
        ("กัน้ำ", "[กัน้ำ]"),
    ],
)
def test_wikitext_reads_what_editors_and_phones_type(typed: str, tokens: str) -> None:
    assert readable(WIKITEXT, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("The Company", "the company"),
        ('"The profit," he said; (the plan)...', "the profit he said the plan"),
        ("profit -- the plan—the year", "profit the plan the year"),
        ("don't can't won’t I'm", "do n't ca n't wo n't i 'm"),
        ("cannot", "can not"),
        ("the company's directors' report", "the company 's directors ' report"),
        ("'directors' directors'.", "directors directors '"),
        ("'80s", "'80s"),
    ],
)
def test_ptb_is_lower_case_without_punctuation_and_with_clitics_apart(typed: str, tokens: str) -> None:
    assert readable(PTB, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("1990 1,200.5 3/4 1989-90 1989–90 1:30 -5", "N N N N N N N"),
        ("$1,000 US$5.3 $N £7", "$ N us$ N $ N # N"),
        ("50%, 50 %", "N N N N"),
        ("1990: 12,", "N N"),
        ("N", "N"),
    ],
)
def test_ptb_makes_every_number_and_per_cent_n(typed: str, tokens: str) -> None:
    assert readable(PTB, typed) == tokens


@pytest.mark.parametrize(
    ("typed", "tokens"),
    [
        ("Mr. Tarn, AT&T Inc.", "mr. tarn at&t inc."),
        ("(Inc.), U.S.-based", "inc. u.s.-based"),
        ("report. Oct.", "report oct."),
        ("1/2-year long-term", "1\\/2-year long-term"),
        ("35-day 62%-owned short-term", "[35-day] [62%-owned] [short-term]"),
        ("<unk> (<unk>). <eos>", "<unk> <unk> [<eos>]"),
        ("İzmir", "[İzmir]"),
    ],
)
def test_ptb_keeps_words_whole_as_the_treebank_does(typed: str, tokens: str) -> None:
    assert readable(PTB, typed) == tokens


def test_a_vocabulary_without_the_convention_s_own_words_finds_them_unknown() -> None:
    bare = ["<unk>", "<eos>", "a", "s"]
    assert readable(Vocabulary(bare, Convention.WIKITEXT), "a-a 1,5 a.") == "a [-] a [1] [,] [5] a [.]"
    assert readable(Vocabulary(bare, Convention.PTB), "5 a's 5% cannot s'") == "[5] a ['s] [5] [%] [can] [not] s [']"


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Captain Marlow, (U.S.) e.g. Mr. A", "Captain Marlow , ( U.S. ) e.g. Mr . A"),
        ("U.S.A. U.S.A a.b.c. x.y", "U.S.A. U.S.A a.b.c. x.y"),
        ("don't O'Hara's rock'n'roll 1990's sailors' 'tis", "don't O'Hara's rock'n'roll 1990's sailors ' ' tis"),
        ("1,200.50 10:30 3.14 1, 2:a a:2 5.", "1,200.50 10:30 3.14 1 , 2 : a a : 2 5 ."),
        ("well-known x-y-z -5 a- twenty--five", "well @-@ known x @-@ y @-@ z - 5 a - twenty -- five"),
        ("Wait... what?! No!!! === __init__ ....", "Wait ... what ? ! No !!! === __ init __ ...."),
        ("and/or http://site.org/a?b=1 50% $5", "and / or http : // site.org / a ? b = 1 50 % $ 5"),
        ("“Hello”, ‘she’ said—it’s", "\" Hello \" , ' she ' said — it's"),
        ("naïve na\u0131\u0308ve e\u0301tude हिन्दी", "naïve na\u0131\u0308ve \u00e9tude हिन्दी"),
        ("🙂🙂 ❤\ufe0f 👨\u200d👩\u200d👧! 中文。", "🙂🙂 ❤\ufe0f 👨\u200d👩\u200d👧 ! 中文 。"),
        ("<unk>, <eos> x<unk>y 3 @.@ 5 a@-@b", "<unk> , <unk> x <unk> y 3 @.@ 5 a @-@ b"),
        ("\0\x01 a\0b", "\0 \x01 a \0 b"),
        ("a" * 1001 + " " + "b" * 1000, "<unk> " + "b" * 1000),
        (" \t ", ""),
    ],
)
def test_plain_text_is_words_and_punctuation(line: str, tokens: str) -> None:
    assert " ".join(words_of(line, Convention.PLAIN)) == tokens


@given(
    words=st.lists(
        st.text(
            st.one_of(
                st.sampled_from("aB1.,:'’-_@<unk>!é\u0301\u200d🙂"),
                st.characters(codec="utf-8", exclude_characters="\n"),
            ),
            max_size=8,
        ),
        max_size=4,
    )
)
def test_tokens_of_plain_text_are_their_own_tokens(words: list[str]) -> None:
    tokens = list(words_of(" ".join(words), Convention.PLAIN))
    assert list(words_of(" ".join(tokens), Convention.PLAIN)) == tokens
    vocabulary = Vocabulary.from_lines([" ".join(words)], Convention.PLAIN)
    assert [vocabulary.word_of(i) for i in vocabulary.tokenise(" ".join(words)).ids] == tokens


@pytest.mark.parametrize("vocabulary", [WIKITEXT, PTB, PLAIN], ids=["wikitext", "ptb", "plain"])
@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "-",
        "'",
        "!",
        ".,",
        "a.b.",
        "O'",
        "1,",
        "n't",
        "$",
        "<unk>",
        "U.",
        "\0",
        "\ud800",
        "🙂",
        "e\u0301",
        "…",
        "a:",
        "1:",
        "👨\u200d",
        "@-@",
    ],
)
def test_time_grows_with_the_length_of_a_word_without_blanks(vocabulary: Vocabulary, unit: str) -> None:
    split = splitter(vocabulary.convention, vocabulary.words).split

    def seconds(length: int) -> float:
        word = (unit * length)[:length]
        taken = []
        for _ in range(3):  # The quickest: a collection of garbage may fall into any of them.
            start = time.process_time()
            split(word)
            taken.append(time.process_time() - start)
        return min(taken)

    seconds(1_000)
    # Sixteen times the length; quadratic would take 256 times the time. A small constant forgives the clock.
    assert seconds(64_000) < 64 * seconds(4_000) + 0.05


@pytest.mark.parametrize(
    ("typed", "tokens", "places"),
    [
        ("har\u00adbour", "harbour", ["har\u00adbour"]),
        ("ﬁrst-", "first-", ["ﬁrst-"]),
        ("\ufeffThe\u200b,", "The ,", ["\ufeffThe\u200b", ","]),
        ("north\u2060-\u200bwe\u00adst", "north @-@ west", ["north\u2060", "-\u200b", "we\u00adst"]),
        ("saﬄors\u200d ﬁrst\u200c-", "[saﬄors\u200d] first-", ["saﬄors\u200d", "ﬁrst\u200c-"]),
        ("didn\u00ad't", "didn 't", ["didn\u00ad", "'t"]),
        ("\u00ad\u200b", "[\u00ad\u200b]", ["\u00ad\u200b"]),
    ],
)
def test_what_is_not_seen_is_left_out_and_a_ligature_is_its_letters(typed: str, tokens: str, places: list[str]) -> None:
    assert readable(WIKITEXT, typed) == tokens
    found = WIKITEXT.tokenise(typed)
    assert [typed[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == places


def test_every_convention_leaves_out_what_is_not_seen() -> None:
    assert readable(PTB, "direc\u00adtors\u200b' proﬁt\ufeff!") == "directors ' profit"
    assert readable(PLAIN, "the bar\u00adque; \ufeffwell\u200b-known") == "the barque ; well @-@ known"
    assert list(words_of("co\u00adoperate ﬁnd\u200b, \ufeffwell", Convention.PLAIN)) == [
        "cooperate",
        "find",
        ",",
        "well",
    ]


def test_joiners_that_mean_something_stay() -> None:
    text = "می\u200cخواهم 👨\u200d🚀"
    vocabulary = Vocabulary.from_lines([text], Convention.PLAIN)
    assert set(text.split()) <= set(vocabulary.words)
    assert readable(vocabulary, text) == text


def test_a_word_that_the_vocabulary_has_as_it_is_stays_so() -> None:
    for convention in (Convention.WIKITEXT, Convention.PTB):
        vocabulary = Vocabulary(["<eos>", "<unk>", "\ufeff", "eﬃcient", "co\u00adop", "efficient"], convention)
        assert (
            readable(vocabulary, "\ufeff eﬃcient co\u00adop e\u00adfficient") == "\ufeff eﬃcient co\u00adop efficient"
        )
