"""Typing with personal words is counted as into a personal session, and the record is of what is served."""

from __future__ import annotations

import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.engines import load_engine
from app.personal import Adaptation, OwnWords
from app.served_model import open_model
from app.settings import Settings
from benchmarks.keystrokes import BUNDLE, PRECISION, SHOWN, Suggested, Word
from benchmarks.personal import (
    LAMBDAS,
    RECORD,
    THETAS,
    WINDOWS,
    articles,
    corpus_lines,
    first,
    journal,
    perplexities,
    type_sessions,
)
from model.bundle import open_bundle
from model.conventions import Convention
from model.vocabulary import Vocabulary
from tests.app.serving import serving
from tests.app.talking import append, create, post

WORDS = ["<unk>", "the", "then", "they", "this", "that", "The", "tea", "<eos>", ",", "@-@", "-", "so", "Tom"]
VOCABULARY = Vocabulary(WORDS, Convention.WIKITEXT)
LIKELY = -np.arange(len(WORDS), dtype=np.float32)
GIVEN = Adaptation(40, 0.2, 0.5)

TEXT = """
Captain Zanzibarra was a small man . Of Zanzibarra , the captain , it is said that he left the harbour of Queltzig ,
and Queltzig was his home
in the sea . Zanzibarra did not write letters , and of letters Queltzig has none .
""".lstrip("\n")


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def typed(word: str, own: OwnWords) -> int | None:
    token = VOCABULARY.id_of(word)
    return Suggested(VOCABULARY).typed(LIKELY, Word(0, word, None if token == VOCABULARY.unk_id else token), own)


def test_own_words_stand_among_the_others_by_their_probability() -> None:
    # Shown at first: the, then, they, this and that; of own words those before the fifth, and after words as likely.
    assert typed("Zog", OwnWords(["Zog"], [-4.5])) == 0
    assert typed("Zog", OwnWords(["Zog"], [-5.0])) == 1
    assert typed("that", OwnWords(["Zog"], [-4.5])) == 1
    assert typed("that", OwnWords(["tog"], [-4.5])) == 2
    assert typed("that", OwnWords(["Zog"], [-5.0])) == 0
    assert typed("the", OwnWords(["Zog"], [-0.5])) == 0
    both = OwnWords(["Zog", "zoo"], [-4.5, -4.5])
    assert (typed("Zog", both), typed("zoo", both)) == (0, 1)
    assert typed("Zig", both) is None


def test_articles_begin_with_their_titles() -> None:
    text = " \n = One = \n \n = = Part = = \n the tea \n = Two things = \n so \n"
    assert list(articles(text)) == [" = One = \n \n = = Part = = \n the tea \n", " = Two things = \n so \n"]
    assert first(["the tea\n", "so so\n", "tea\n"], VOCABULARY, 4) == ["the tea\n", "so so\n"]


def test_plain_text_is_typed_as_the_service_cuts_it(tmp_path: Path) -> None:
    assert corpus_lines("\nThe tea-room, Zog\n\nso\n", VOCABULARY) == "The tea @-@ room , Zog\nso\n"
    with zipfile.ZipFile(tmp_path / "treebank.zip", "w") as archive:
        archive.writestr("treebank/raw/wsj_0002", ".START \n\nTom, so\n")
        archive.writestr("treebank/raw/wsj_0001", ".START \n\nThe tea\n")
        archive.writestr("treebank/raw/README", "The README")
    assert list(journal(tmp_path / "treebank.zip", VOCABULARY)) == ["The tea\n", "Tom , so\n"]


def through_the_service(client: TestClient, **fields: Any) -> tuple[list[int], float]:
    """Keys of each word, asked for after every character, and the log-likelihood of the text as it was read."""
    session_id, keys, total = create(client, **fields), [], 0.0
    for found in re.finditer(r"\n|\S+", TEXT):
        spelling = found[0].strip("\n")
        for prefix in (spelling[:count] for count in range(len(spelling))):
            predictions = append(client, session_id, prefix=prefix)["predictions"]
            if spelling in (prediction["word"] for prediction in predictions):
                keys.append(len(prefix) + 1)
                break
        else:
            keys.append(len(spelling) + 1)
        total += sum(token["log_probability"] for token in append(client, session_id, found[0])["tokens"])
    return keys, total


def test_keys_and_likelihood_are_those_of_typing_into_sessions_of_the_service() -> None:
    bundle = open_bundle(BUNDLE)
    engine = load_engine(bundle, PRECISION, threads=1)
    found = type_sessions(engine, bundle.vocabulary(), [TEXT], Convention.WIKITEXT, GIVEN)
    chosen: dict[str, Any] = {
        "bundle": BUNDLE, "precision": PRECISION, "threads": 1, "personal_window": GIVEN.window,
        "personal_lambda": GIVEN.weight, "personal_theta": GIVEN.theta,
    }  # fmt: skip
    with serving(open_model(Settings(**chosen)), **chosen) as client:
        for figures, fields in zip(found, ({}, {"personal": True}), strict=True):
            keys, total = through_the_service(client, **fields)
            assert figures.all.keys == sum(keys)
            assert figures.log_likelihood == pytest.approx(total, rel=1e-5)
        # What names cost the third time that they are typed is what own words are for.
        session_id = create(client, TEXT, personal=True)
        assert post(client, f"/sessions/{session_id}/append", prefix="Zanz")["predictions"][0]["word"] == "Zanzibarra"
    alone, personal = found
    assert personal.all.keys < alone.all.keys
    assert (alone.unknown, personal.unknown) == (6, 6)


def test_every_choice_of_the_cache_has_the_perplexity_of_typing_with_it() -> None:
    bundle = open_bundle(BUNDLE)
    vocabulary = bundle.vocabulary()
    engine = load_engine(bundle, PRECISION, threads=1)
    rows = perplexities(engine, vocabulary, [TEXT])
    assert len(rows) == 1 + len(LAMBDAS) * len(THETAS) * len(WINDOWS)
    given = Adaptation(WINDOWS[0], LAMBDAS[1], THETAS[2])
    alone, personal = type_sessions(engine, vocabulary, [TEXT], Convention.WIKITEXT, given)
    chosen = {"window": given.window, "lambda": given.weight, "theta": given.theta}
    [row] = [row for row in rows if chosen.items() <= row.items()]
    assert row["perplexity"] == pytest.approx(math.exp(-personal.log_likelihood / personal.tokens), rel=1e-2)
    assert rows[0]["perplexity"] == pytest.approx(math.exp(-alone.log_likelihood / alone.tokens), rel=1e-5)


def test_the_record_is_of_the_bundle_and_the_settings_that_are_served() -> None:
    settings = Settings()
    used = {
        "window": settings.personal_window, "lambda": settings.personal_lambda, "theta": settings.personal_theta,
    }  # fmt: skip
    assert record()["bundle"]["sha256"] == open_bundle(BUNDLE).sha256
    assert (record()["suggestions"], record()["settings"]) == (SHOWN, used)
    of_window = [row for row in record()["choices"] if row.get("window") == settings.personal_window]
    best = min(of_window, key=lambda row: row["perplexity"])
    assert {name: best[name] for name in used} == used, "lambda and theta are those of the lowest validation perplexity"


def test_the_records_rates_follow_from_its_counts_and_personal_words_save_keys_in_every_text() -> None:
    results = record()["results"]
    for alone, personal in zip(results[::2], results[1::2], strict=True):
        assert alone["text"] == personal["text"]
        assert (alone["words"], alone["tokens_read"]) == (personal["words"], personal["tokens_read"])
        assert personal["saved_percent"] > alone["saved_percent"]
        assert personal["perplexity"] < alone["perplexity"]
        for result in (alone, personal):
            assert result["saved_percent"] == pytest.approx(100 * (1 - result["keys_with"] / result["keys_without"]))
