"""The words of a vocabulary: which it learns, what completes a prefix, and its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from model.conventions import Convention
from model.errors import TextError
from model.vocabulary import Vocabulary
from tests.model.texts import plain, ptb, wikitext

WIKITEXT = wikitext()
PTB = ptb()
PLAIN = plain()
EVERY = pytest.mark.parametrize("vocabulary", [WIKITEXT, PTB, PLAIN], ids=["wikitext", "ptb", "plain"])


def test_ids_fall_with_frequency_and_ties_keep_the_order_of_the_lines() -> None:
    vocabulary = Vocabulary.from_lines(["b a c", "a d", " "], Convention.WIKITEXT)
    assert vocabulary.words == ("<eos>", "a", "b", "c", "d", "<unk>")
    assert (vocabulary.eos_id, vocabulary.unk_id, len(vocabulary)) == (0, 5, 6)
    assert vocabulary.encode("a x\n\nd").tolist() == vocabulary.encode("a x\n\nd\n").tolist() == [1, 5, 0, 0, 4, 0]
    assert vocabulary.encode("").tolist() == [0]
    assert vocabulary.encode("a").dtype == np.int32
    assert [vocabulary.id_of("a"), vocabulary.id_of("x")] == [1, 5]


def test_rare_words_and_those_past_the_largest_number_are_left_out() -> None:
    lines = ["a a a <unk> b b", "c c b d", "<unk> e"]

    def words(min_count: int, max_words: int | None = None) -> tuple[str, ...]:
        return Vocabulary.from_lines(lines, Convention.PLAIN, min_count=min_count, max_words=max_words).words

    assert words(1) == ("a", "b", "<eos>", "<unk>", "c", "d", "e")
    assert words(2) == ("a", "b", "<eos>", "<unk>", "c")
    assert words(3) == ("a", "b", "<eos>", "<unk>")
    assert words(4) == ("<eos>", "<unk>")
    assert words(1, max_words=4) == words(2, max_words=4) == ("a", "b", "<eos>", "<unk>")
    assert words(1, max_words=3) == ("a", "<eos>", "<unk>")
    assert words(2, max_words=50_000) == words(2)


def test_vocabularies_are_told_apart_by_their_words_and_convention() -> None:
    first = Vocabulary(["<eos>", "<unk>", "a"], Convention.PLAIN).identity
    assert first == {"convention": "plain", "words": 3, "sha256": hashlib.sha256(b"<eos>\n<unk>\na").hexdigest()}
    assert Vocabulary(["<eos>", "<unk>", "b"], Convention.PLAIN).identity["sha256"] != first["sha256"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["<eos>", "a"], "<unk> is missing"),
        (["<unk>", "a"], "<eos> is missing"),
        (["<eos>", "<unk>", "a", "b", "a"], "'a' is listed more than once"),
        (["<eos>", "<unk>", "a b"], "'a b' is empty or holds a blank"),
        (["<eos>", "<unk>", ""], "'' is empty or holds a blank"),
        (["<eos>", "<unk>", "\ud800"], "half a character"),
    ],
)
def test_words_that_make_no_vocabulary_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(TextError, match=message):
        Vocabulary(words, Convention.WIKITEXT)


def test_words_are_told_from_marks_and_specials() -> None:
    def chosen(vocabulary: Vocabulary, words: str) -> str:
        return " ".join(word for word in words.split() if vocabulary.is_word(vocabulary.id_of(word)))

    assert (
        chosen(WIKITEXT, "town 's 1990 ² café , @-@ -- ... <unk> <eos> <formula> ' # U.S.")
        == "town 's 1990 ² café U.S."
    )
    assert chosen(PTB, "the 's N $ us$ n't <unk> at&t") == "the 's us$ n't at&t"
    assert [word for word in PTB.words if PTB.is_special(PTB.id_of(word))] == ["N", "<eos>", "<unk>"]
    assert [word for word in WIKITEXT.words if WIKITEXT.is_special(WIKITEXT.id_of(word))] == ["<eos>", "<unk>"]


def test_completions_are_those_of_a_plain_scan() -> None:
    for vocabulary in (WIKITEXT, PTB):
        prefixes = {vocabulary.surface(i)[:n] for i in range(len(vocabulary)) for n in range(4)}
        for prefix in prefixes | {prefix.lower() for prefix in prefixes} | {"zz", "\ud800", "\U0010ffff"}:
            words = [vocabulary.surface(i) for i in range(len(vocabulary))]
            any_case = vocabulary is PTB or prefix == prefix.lower()
            expected = [
                i
                for i, word in enumerate(words)
                if (word.lower().startswith(prefix.lower()) if any_case else word.startswith(prefix))
            ]
            assert vocabulary.completions(prefix).tolist() == expected


def test_a_lower_case_prefix_matches_any_case_and_another_its_own() -> None:
    def completed(vocabulary: Vocabulary, prefix: str) -> list[str]:
        return [vocabulary.word_of(token_id) for token_id in vocabulary.completions(prefix)]

    assert sorted(completed(WIKITEXT, "no")) == ["No.", "north"]
    assert completed(WIKITEXT, "No") == ["No."]
    assert completed(PTB, "Sharehold") == ["shareholders"]
    assert completed(WIKITEXT, "-") == ["@-@", "-", "--"]
    assert len(completed(WIKITEXT, "")) == len(WIKITEXT)


@EVERY
def test_a_saved_vocabulary_is_loaded_the_same(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert (loaded.words, loaded.convention) == (vocabulary.words, vocabulary.convention)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "format": "pru-tokenizer",
        "version": 1,
        "convention": vocabulary.convention.value,
        "words": list(vocabulary.words),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "is not a tokenizer of this project"),
        ([], "is not a tokenizer of this project"),
        ({"version": 2}, "has version 2, not 1"),
        ({"convention": "klingon"}, "klingon"),
        ({"words": ["a", 1]}, "holds no list of words"),
        ({"words": None}, "holds no list of words"),
        ({"words": ["a"]}, "<eos> is missing"),
    ],
)
def test_a_damaged_file_is_refused_by_name(content: object, message: str, tmp_path: Path) -> None:
    whole = {"format": "pru-tokenizer", "version": 1, "convention": "ptb", "words": ["<eos>", "<unk>"]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole | content if isinstance(content, dict) else content), encoding="utf-8")
    with pytest.raises(TextError, match=message) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"tokenizer\.json is missing"):
        Vocabulary.load(tmp_path / "tokenizer.json")
