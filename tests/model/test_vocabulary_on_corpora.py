"""The laws of text over the real corpora, and how much of a corpus comes back from plain text."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

from model.vocabulary import Vocabulary
from tests.model.texts import ids_of_lines
from training.corpus import Corpus, lines_of, load_corpus

NAMES = ("ptb", "wikitext-2")
SIZES = {
    "ptb": (10_000, 929_589, 73_760, 82_430),
    "wikitext-2": (33_278, 2_088_628, 217_646, 245_569),
}
Loaded = tuple[Corpus, Vocabulary]


@pytest.fixture(scope="module")
def corpora(data_dir: Path) -> dict[str, Loaded]:
    loaded = {}
    for name in NAMES:
        corpus = load_corpus(str(data_dir / name))
        loaded[name] = (corpus, corpus.vocabulary())
    return loaded


def returned(vocabulary: Vocabulary, lines: list[str], plain: Callable[[str], str]) -> float:
    """Share of the tokens of corpus lines that come back, in order, when each line is made plain and tokenised."""
    tokens = matched = 0
    for line in lines:
        expected = ids_of_lines(vocabulary, [line])[:-1]
        got = vocabulary.tokenise(plain(line)).ids.tolist()
        blocks = SequenceMatcher(None, expected, got, autojunk=False).get_matching_blocks()
        tokens += len(expected)
        matched += len(expected) if got == expected else sum(block.size for block in blocks)
    return matched / tokens


def made_plain(line: str) -> str:
    """A WikiText line as the `wikitext` task of `lm_eval` turns it into plain text, for better or worse."""
    line = line.replace("s '", "s'")
    for mark in "-,.":
        line = line.replace(f" @{mark}@ ", mark)
    for mark in ":;.!?,":
        line = line.replace(f" {mark} ", f"{mark} ")
    for first, last in ("()", "[]", "{}", '""', "''"):
        inner = rf"\s*([^{re.escape(last)}]*?)\s*"
        line = re.sub(f"{re.escape(first)}{inner}{re.escape(last)}", rf"{first}\1{last}", line)
    for count in (4, 3, 2):
        line = line.replace(" ".join("=" * count), "=" * count)
    for written, plain in ((" ° ", "°"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")):
        line = line.replace(written, plain)
    return line


@pytest.mark.parametrize("name", NAMES)
def test_vocabularies_and_token_counts_are_the_published_ones(corpora: dict[str, Loaded], name: str) -> None:
    corpus, vocabulary = corpora[name]
    counts = (len(vocabulary.encode(text)) for text in corpus.splits.values())
    assert (len(vocabulary), *counts) == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_corpus_tokenises_to_itself(corpora: dict[str, Loaded], name: str) -> None:
    corpus, vocabulary = corpora[name]
    for text in corpus.splits.values():
        np.testing.assert_array_equal(vocabulary.encode(text), ids_of_lines(vocabulary, lines_of(text)))
        assert not vocabulary.tokenise(text).unknown.any()


def test_plain_text_of_lm_eval_gives_back_wikitext(corpora: dict[str, Loaded]) -> None:
    corpus, vocabulary = corpora["wikitext-2"]
    assert made_plain(' = = In 5 @.@ 2 km ( 3 ) , " X \'s " = = \n') == ' == In 5.2 km (3), "X\'s" ==\n'
    assert returned(vocabulary, lines_of(corpus.splits["valid"]), made_plain) >= 0.9998


@pytest.mark.parametrize("name", NAMES)
def test_text_that_was_written_gives_back_its_tokens(corpora: dict[str, Loaded], name: str) -> None:
    corpus, vocabulary = corpora[name]

    def rewritten(line: str) -> str:
        return vocabulary.detokenise(ids_of_lines(vocabulary, [line])[:-1])

    assert returned(vocabulary, lines_of(corpus.splits["valid"]), rewritten) >= 0.999


def test_text_in_print_gives_back_the_ptb(corpora: dict[str, Loaded]) -> None:
    corpus, vocabulary = corpora["ptb"]

    def printed(line: str) -> str:
        """A line in capitals, with figures, quotes and punctuation."""
        text = vocabulary.detokenise(ids_of_lines(vocabulary, [line])[:-1])
        text = re.sub(r"\bN\b", "1,990", re.sub(r"\bN N\b", "12.5%", text))
        return f"“{text.upper()}” -- (!)".replace("<UNK>", "<unk>")

    assert printed("the firm 's $ N loss is N N") == "“THE FIRM'S $1,990 LOSS IS 12.5%” -- (!)"
    assert returned(vocabulary, lines_of(corpus.splits["valid"]), printed) >= 0.999
