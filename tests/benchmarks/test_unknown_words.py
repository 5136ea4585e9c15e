"""Pairs of texts differ as they say, the penalty is the one that is right most often, and pages name that one."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from app.scoring import Likelihood
from benchmarks.keystrokes import BUNDLE
from benchmarks.unknown_words import (
    PENALTIES,
    RECORD,
    Pair,
    Scored,
    best_penalty,
    confused,
    edits,
    misread,
    most_similar,
    rare,
    sentences,
    shares,
)
from model.bundle import open_bundle
from model.conventions import Convention
from model.vocabulary import Vocabulary
from tests.source import ROOT

WORDS = ["<unk>", "<eos>", "the", "cat", "cats", "near", "barn", "bam", "sleeps", "steep", "in", "."]
VOCABULARY = Vocabulary(WORDS, Convention.WIKITEXT)
COUNTS = Counter({"the": 9, "cat": 2, "cats": 3, "near": 3, "barn": 1, "sleeps": 2, "steep": 1})


def test_confused_letters_look_alike() -> None:
    assert confused("lame") == {"1ame", "lome", "larne", "lamc"}
    assert confused("barn") == {"harn", "born", "baru", "bam"}


def test_an_edit_leaves_a_letter_out_exchanges_two_replaces_one_or_puts_one_in() -> None:
    found = edits("cat")
    assert {"at", "act", "cut", "cart", "catz"} <= found
    assert not {"tac", "c", "carts"} & found


def test_one_word_of_a_misread_sentence_is_changed_into_none_of_the_vocabularys() -> None:
    for seed in range(50):
        pair = misread("the cat sleeps in the barn .", VOCABULARY, random.Random(seed))
        assert pair is not None
        assert pair.right == "the cat sleeps in the barn ."
        words = zip(pair.right.split(), pair.wrong.split(), strict=True)
        [(before, after)] = [(before, after) for before, after in words if before != after]
        assert before in {"sleeps", "barn"}
        assert after not in WORDS


def test_a_sentence_of_short_words_is_not_misread() -> None:
    assert misread("the cat in the .", VOCABULARY, random.Random(1)) is None


def test_an_unknown_word_is_taken_for_the_most_frequent_of_the_nearest_known_ones() -> None:
    # One edit from "cat" and from "cats"; two from "near", and nearer to nothing else; far from all.
    assert most_similar("catt", COUNTS) == "cats"
    assert most_similar("nearly", COUNTS) == "near"
    assert most_similar("Zanzibar", COUNTS) is None
    assert rare("the barns near the cat .", VOCABULARY, COUNTS) == Pair(
        "the barns near the cat .", "the barn near the cat ."
    )
    assert rare("the Zanzibar cat .", VOCABULARY, COUNTS) is None


def test_sentences_are_those_without_lost_words() -> None:
    text = " = A heading of the cat here = \n the cat sleeps in the barn . the <unk> sleeps in the barn . the cat . \n"
    assert list(sentences(text)) == ["the cat sleeps in the barn ."]


def test_shares_are_those_counted_by_hand() -> None:
    right, close, far = Likelihood(-20.0, 5, 0, -20.0), Likelihood(-18.5, 5, 1, -17.0), Likelihood(-9.5, 5, 1, -9.0)
    found = shares([Scored(right, close), Scored(right, far)])
    assert found["pairs"] == 2
    expected = {penalty: 50.0 * ((penalty > 1.5) + (penalty > 10.5)) for penalty in PENALTIES}
    assert found["right_percent"] == {str(penalty): share for penalty, share in expected.items()}
    assert found["right_percent_by_perplexity"] == 0
    # 20 / 5 nats a token against 17 / 4 and 9 / 4.
    assert found["right_percent_by_perplexity_without_oov"] == 50


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORD.read_text())
    return content


def test_the_record_is_of_the_bundle_in_the_repository_and_its_penalty_is_right_most_often() -> None:
    found = record()
    assert found["bundle"]["sha256"] == open_bundle(BUNDLE).sha256
    assert found["oov_penalty"] == best_penalty(found["chosen on"])
    kinds = [(result["kind"], result["text"].split()[0]) for result in found["measured on"]]
    assert kinds == [("misread", "wikitext-2"), ("misread", "Wall"), ("rare", "Wall")]
    assert not {result["text"] for result in found["chosen on"]} & {result["text"] for result in found["measured on"]}


@pytest.mark.parametrize("page", ["README.md", "docs/http.md", "app/static/compare.js"])
def test_pages_recommend_the_penalty_of_the_record(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f'"oov_penalty": {record()["oov_penalty"]}' in text
