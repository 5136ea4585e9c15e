"""Keystrokes are counted as somebody types through the service, and the record is of the bundle that is served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from app.engines import load_engine
from app.schemas import PredictRequest
from app.served_model import open_model
from app.settings import Settings
from benchmarks.keystrokes import (
    BUNDLE,
    PRECISION,
    RECORD,
    SHOWN,
    Suggested,
    Word,
    corpus,
    engine_rows,
    text_of,
    type_text,
    unigram_rows,
)
from model.bundle import open_bundle
from model.conventions import Convention
from model.errors import CorpusError
from model.vocabulary import Vocabulary
from tests.app.serving import serving

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

WORDS = ["<unk>", "the", "then", "they", "this", "that", "The", "tea", "<eos>", ",", "@-@", "-", "so", "Tom"]
VOCABULARY = Vocabulary(WORDS, Convention.WIKITEXT)
BEST_FIRST = ["<unk>", "<eos>", "the", ",", "then", "they", "this", "that", "@-@", "The", "tea", "-", "so", "Tom"]

TEXT = """
The captain – a well-known man – did not write letters , and in 1897 he left the harbour of Zanzibarra .
" It is the sea , " said he , " that I do not understand ; a half @-@ hearted <unk> , perhaps . "

In the United States of America
""".lstrip("\n")
"""Lines as WikiText writes them, but for a name that the bundled vocabulary lacks and a word that it cuts in three."""


def likely(best_first: list[str]) -> Floats:
    """Words left out are the least likely, and equally so."""
    return np.array([-best_first.index(word) if word in best_first else -99 for word in WORDS], np.float32)


def typed(token: str, row: Floats) -> int | None:
    spelling = "-" if token == "@-@" else token
    return Suggested(VOCABULARY).typed(row, Word(0, spelling, VOCABULARY.id_of(token)))


def test_a_word_is_typed_until_it_is_among_the_five_likeliest_that_begin_so() -> None:
    # At first "the", ",", "then", "they" and "this" are shown; after "t" that, too, but not "tea"; after "T" only two.
    expected = {"the": 0, ",": 0, "this": 0, "that": 1, "tea": 2, "so": 1, "The": 1, "Tom": 1}
    assert {word: typed(word, likely(BEST_FIRST)) for word in expected} == expected


def test_a_word_of_one_character_that_is_not_shown_at_first_never_is() -> None:
    assert typed("-", likely(BEST_FIRST)) is None
    assert typed("@-@", likely(BEST_FIRST)) is None
    assert typed("@-@", likely(["@-@", *BEST_FIRST])) == 0


def test_a_capitalised_word_stands_among_those_that_begin_with_lower_case() -> None:
    assert typed("that", likely(["the", "then", "they", "this", "that"])) == 0
    # After "t" and "th" it is the sixth; nothing else begins with "tha".
    assert typed("that", likely(["The", "the", "then", "they", "this", "that"])) == 3


def test_of_equally_likely_words_those_of_lower_id_are_shown() -> None:
    assert [typed(word, likely([])) for word in ("the", "that", "The", "tea", ",")] == [0, 0, 1, 2, None]


def test_keys_of_a_text_are_those_counted_by_hand() -> None:
    text = text_of("The tea , <unk> so\nthe zebra\n", Convention.WIKITEXT, VOCABULARY)

    def rows(ids: Ids) -> Iterator[Floats]:
        for block in np.array_split(ids, [4, 5]):
            yield np.tile(likely(BEST_FIRST), (len(block), 1))

    figures = type_text(rows, text, Suggested(VOCABULARY))
    # The, tea, ",", so, the line's end, the, zebra, the line's end.
    without, keys = 4 + 4 + 2 + 3 + 1 + 4 + 6 + 1, 2 + 3 + 1 + 2 + 1 + 1 + 6 + 1
    record = figures.record()
    assert (record["keys_without"], record["keys_with"]) == (without, keys)
    assert record["saved_percent"] == pytest.approx(100 * (1 - keys / without))
    assert (record["lettered_words"], record["lettered_keys_without"], record["lettered_keys_with"]) == (5, 21, 14)
    assert record["saved_percent_of_lettered_words"] == pytest.approx(100 / 3)
    assert (record["words"], record["line_ends"], record["left_out"]) == (6, 2, 1)
    assert (record["unknown"], record["shown_at_once"]) == (1, 2)
    assert record["unknown_percent"] == pytest.approx(100 / 6)
    assert record["shown_at_once_percent"] == pytest.approx(100 / 3)
    # The places in BEST_FIRST of The, tea, ",", <unk>, so, <eos>, the, <unk> and <eos>.
    assert record["perplexity"] == pytest.approx(np.exp((9 + 10 + 3 + 0 + 12 + 1 + 2 + 0 + 1) / 9), rel=1e-6)


def test_words_whose_spelling_is_lost_are_left_out_and_those_the_vocabulary_lacks_are_not() -> None:
    ids, words, left_out = text_of("the N <unk> tom Tom-so\n", Convention.PTB, VOCABULARY)
    assert [VOCABULARY.word_of(token) for token in ids] == [
        "the",
        "<unk>",
        "<unk>",
        "<unk>",
        "Tom",
        "@-@",
        "so",
        "<eos>",
    ]
    the = VOCABULARY.id_of("the")
    assert words == [Word(0, "the", the), Word(3, "tom", None), Word(4, "Tom-so", None), Word(7, "", None)]
    assert left_out == 2


def test_a_joiner_is_spelled_as_the_mark_that_it_is_and_meant_as_itself() -> None:
    _, words, left_out = text_of("tea @-@ tea - N\n", Convention.WIKITEXT, VOCABULARY)
    tea, joiner, dash = map(VOCABULARY.id_of, ("tea", "@-@", "-"))
    expected = [Word(0, "tea", tea), Word(1, "-", joiner), Word(2, "tea", tea), Word(3, "-", dash)]
    assert words == [*expected, Word(4, "N", None), Word(5, "", None)]
    assert left_out == 0


def test_unigrams_are_shares_of_the_training_text() -> None:
    train = np.array([1, 1, 1, 2, 8], np.int32)
    [rows] = unigram_rows(train, len(WORDS))(np.array([5, 6], np.int32))
    expected = np.zeros((2, len(WORDS)))
    expected[:, [1, 2, 8]] = 0.6, 0.2, 0.2
    np.testing.assert_allclose(np.exp(rows), expected, rtol=1e-6)


def test_text_that_is_not_the_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptb").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "ptb" / f"{split}.txt").write_text("the sea is the sea\n" * 9)
    monkeypatch.setenv("PRU_DATA_DIR", str(tmp_path))
    with pytest.raises(CorpusError, match="holds other text"):
        corpus("ptb")


def keys_through_the_service(client: TestClient, text: str) -> list[int]:
    """Keys of each word of a text, asked for after every character as the playground does, and of each line's end."""
    keys = []
    for match in re.finditer(r"\n|\S+", text):
        token = match[0]
        spelling = {"\n": "", "@-@": "-"}.get(token, token)
        if token == "<unk>":
            continue
        for prefix in (spelling[:characters] for characters in range(len(spelling))):
            answer = client.post("/predict", json={"text": text[: match.start()], "prefix": prefix}).json()
            if token in (prediction["token"] for prediction in answer["predictions"]):
                keys.append(len(prefix) + 1)
                break
        else:
            keys.append(len(spelling) + 1)
    return keys


def test_the_keys_are_those_that_typing_through_the_service_takes() -> None:
    bundle = open_bundle(BUNDLE)
    vocabulary = bundle.vocabulary()
    ids, words, _ = text_of(TEXT, Convention.WIKITEXT, vocabulary)
    rows = np.concatenate(list(engine_rows(load_engine(bundle, PRECISION, 1), vocabulary.eos_id)(ids)))
    suggested = Suggested(vocabulary)
    before = [suggested.typed(rows[word.place], word) for word in words]
    found = [1 + (len(word.spelling) if count is None else count) for word, count in zip(words, before, strict=True)]
    with serving(open_model(Settings(bundle=BUNDLE, precision=PRECISION, threads=1))) as client:
        assert found == keys_through_the_service(client, TEXT)
    assert len(found) == len(TEXT.split()) - 1 + TEXT.count("\n")
    assert {word.spelling for word in words if word.token is None} == {"", "well-known", "Zanzibarra"}
    assert {0, 1, 2} <= set(before)


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORD.read_text())
    return content


def test_the_record_is_of_the_bundle_in_the_repository_and_of_every_model_on_every_text() -> None:
    assert record()["bundle"]["sha256"] == open_bundle(BUNDLE).sha256
    assert record()["suggestions"] == SHOWN == PredictRequest(text="").k
    texts = {(result["text"], result["words"], result["keys_without"]) for result in record()["results"]}
    assert [name for name, _, _ in sorted(texts)] == ["ptb valid", "wikitext-2 test"]
    assert len(record()["results"]) == len({result["model"] for result in record()["results"]}) * 2 == 6


def test_the_records_rates_follow_from_its_counts() -> None:
    for result in record()["results"]:
        for name, kind in (("saved_percent", "keys"), ("saved_percent_of_lettered_words", "lettered_keys")):
            assert result[name] == pytest.approx(100 * (1 - result[f"{kind}_with"] / result[f"{kind}_without"]))
        for name in ("unknown", "shown_at_once"):
            assert result[f"{name}_percent"] == pytest.approx(100 * result[name] / result["words"])


def test_the_models_of_the_record_have_the_perplexities_known_of_them() -> None:
    perplexities = {
        result["model"]: result["perplexity"] for result in record()["results"] if result["text"] == "wikitext-2 test"
    }
    assert perplexities["the bundled model, int8"] == pytest.approx(92.63, rel=1e-3)
    # KenLM's, with the same text, order and smoothing.
    assert perplexities["modified Kneser-Ney 5-gram"] == pytest.approx(220.1, rel=1e-3)
