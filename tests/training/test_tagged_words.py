"""Tagged text, its mistakes, and how its words find those of a vocabulary."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from model.conventions import Convention
from model.errors import CorpusError
from model.vocabulary import Vocabulary
from training.analysis.tagged_words import read_tagged_words, words_by_category

TREEBANK = """

[ The/DT cat/NN ]
sat/VBD on/IN
[ the/DT red\\/blue/JJ mats/NNS ]
./.
======================================
sat/VBN|JJ
"""
COUNTED = {
    ("The", "DT"): 1,
    ("cat", "NN"): 1,
    ("sat", "VBD"): 1,
    ("on", "IN"): 1,
    ("the", "DT"): 1,
    ("red/blue", "JJ"): 1,
    ("mats", "NNS"): 1,
    (".", "."): 1,
    ("sat", "VBN"): 1,
}


def test_a_text_file_and_a_zip_of_pos_files_hold_the_same_words(tmp_path: Path) -> None:
    text, archive = tmp_path / "tagged.txt", tmp_path / "treebank.zip"
    text.write_text(TREEBANK)
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("treebank/tagged/wsj_0001.pos", TREEBANK.split("=", maxsplit=1)[0])
        zipped.writestr("treebank/tagged/wsj_0002.pos", "sat/VBN|JJ")
        zipped.writestr("treebank/tagged/README", "no tags here")
    assert read_tagged_words(text) == COUNTED
    assert read_tagged_words(archive) == COUNTED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the/DT\ncat sat/VBD", "line 2: 'cat' is not word/TAG"),
        ("the/DT cat/", "line 1: 'cat/' is not word/TAG"),
        ("\n\n/NN", "line 3: '/NN' is not word/TAG"),
        ("cat/NOUN", "line 1: 'cat/NOUN' has no Penn Treebank tag"),
        ("", "holds no tagged word"),
        ("[ ]\n====", "holds no tagged word"),
    ],
)
def test_a_malformed_file_is_named_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tagged.txt"
    path.write_text(text)
    with pytest.raises(CorpusError) as caught:
        read_tagged_words(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_malformed_file_in_a_zip_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "treebank.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("tagged/a.pos", "the/DT")
        zipped.writestr("tagged/b.pos", "the/DT\ncat")
    with pytest.raises(CorpusError, match=r"treebank\.zip: tagged/b\.pos, line 2: 'cat' is not word/TAG"):
        read_tagged_words(path)


def test_files_that_are_missing_damaged_or_without_tags_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read: No such file"):
        read_tagged_words(tmp_path / "none.txt")
    path = tmp_path / "treebank.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("README", "nothing else")
    with pytest.raises(CorpusError, match=r"holds no tagged word.*zip of \.pos files"):
        read_tagged_words(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.pos", "the/DT cat/NN " * 100)
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        read_tagged_words(path)


def test_a_word_counts_once_under_its_most_frequent_tag_if_the_text_has_it(tmp_path: Path) -> None:
    path = tmp_path / "tagged.txt"
    path.write_text(
        "The/DT the/DT the/NN run/NN run/VB run/NN runs/VBZ well/RB ,/, 1,000/CD to/TO two-part/JJ <unk>/NN"
    )
    vocabulary = Vocabulary(
        ["<eos>", "<unk>", "the", "run", "runs", "well", "to", ",", "@-@", "two", "part", "The"], Convention.WIKITEXT
    )
    ids = vocabulary.encode("the run , to two @-@ part <unk>\nThe well")
    words = {
        category: [vocabulary.word_of(token_id) for token_id in of_category]
        for category, of_category in words_by_category(vocabulary, read_tagged_words(path), ids).items()
        if of_category
    }
    # "runs" is tagged and known, but not in the text; "two" and "part" were never tagged by themselves.
    assert words == {"nouns": ["run"], "adverbs": ["well"], "determiners": ["the", "The"], "other": ["to", ","]}


def test_words_are_matched_as_the_vocabulary_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "tagged.txt"
    path.write_text("March/NNP march/VB March/NNP 1,000/CD 30/CD ,/,")
    vocabulary = Vocabulary(["<eos>", "<unk>", "march", "N"], Convention.PTB)
    words = words_by_category(vocabulary, read_tagged_words(path), vocabulary.encode("march N <unk>"))
    assert {category: ids for category, ids in words.items() if ids} == {"nouns": [2], "numbers": [3]}


def test_a_zip_that_was_not_fetched_to_its_end_is_called_a_damaged_zip(tmp_path: Path) -> None:
    path = tmp_path / "treebank.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("a.pos", "the/DT cat/NN " * 100)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorpusError, match=r"treebank\.zip cannot be unpacked \(File is not a zip file\); fetch it"):
        read_tagged_words(path)
