"""`python -m benchmarks.keystrokes`: the share of keystrokes that the bundled model's suggestions save, beside n-grams.

Boundary: WikiText-2's test text and the Penn Treebank's validation text, from the folders `wikitext-2` and `ptb` of
PRU_DATA_DIR (fetched where it is not set), typed as if through `POST /predict` with its defaults and k=5. Prints a
table and writes `benchmarks/results/keystrokes.json`.

The keystroke saving rate is, in per cent,

    (keys without suggestions - keys with them) / keys without suggestions

(Garay-Vitoria and Abascal, "Text prediction systems: a survey", 2006; Trnka and McCoy, "Evaluating Word Prediction:
Framing Keystroke Savings", ACL 2008, which says how much it depends on choices). Those made here:

- A word is what stands between blanks in the corpus, punctuation too, written as the service shows it ("-" for "@-@").
- Without suggestions a word costs its characters and the space after it.
- With them, 5 words are shown before its first character and after each. As soon as it is among them, one key takes it
  and the space. A word that is never shown is typed: its characters and the space. Nothing is taken by mistake, and
  looking costs nothing.
- Shown are the 5 likeliest words that begin with what is typed, ties by lower id: in any case if that is lower case,
  else in its own. `<unk>` and `<eos>` are not shown. A word is found when the very one is shown: "The" is not "the".
- A line's end is one key with and without suggestions.
- `<unk>` in a text, and `N` in the Penn Treebank's, stand for words whose spelling is lost: they are read, and neither
  typed nor counted as words.
- A word that the vocabulary lacks, or cuts in several, is never shown. It counts, and is read as the service reads it.
- Every model reads the true text, one stream from its start. An n-gram's context begins with its line. The perplexity
  is of every token read, `<unk>` and line ends among them.

All models have the bundle's vocabulary and WikiText-2's training text. None has learnt anything of the Treebank, which
is in lower case and without punctuation.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from app.engines import Engine, load_engine
from app.personal import NO_WORDS, OwnWords
from benchmarks.kneser_ney import KneserNey
from model.bundle import open_bundle
from model.command_line import errors_in_one_line
from model.conventions import NUMBER, UNK, Convention
from model.errors import CorpusError
from model.files import write_json
from model.spelling import surface
from model.vocabulary import Vocabulary
from training.corpus import Corpus, load_corpus

ROOT = Path(__file__).parents[1]
BUNDLE, RECORD = ROOT / "bundles" / "wikitext-2", ROOT / "benchmarks" / "results" / "keystrokes.json"
PRECISION = "int8"
SHOWN = 5
"""Suggestions at a time, as many as `POST /predict` gives unless asked for another number."""
ORDER = 5
"""Words of the longest n-gram."""
ROWS = 256
"""Places whose log-probabilities are in memory at once."""

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Rows = Callable[[Ids], Iterator[Floats]]
"""A model: given a text [n], the log-probability of every word at each of its places, in blocks [m, V]."""


class Word(NamedTuple):
    """A word to be typed."""

    place: int
    """Which token of the text it is, or begins with."""
    spelling: str
    """Empty for a line's end."""
    token: int | None
    """None where no suggestion can be this word."""


class Text(NamedTuple):
    """A text to be typed: its tokens [n], which the models read, and its words."""

    ids: Ids
    words: list[Word]
    left_out: int
    """Words whose spelling is lost."""


@dataclass
class Tally:
    """Keys that some words cost, each with the space after it."""

    words: int = 0
    without: int = 0
    keys: int = 0
    """With suggestions."""

    def add(self, without: int, keys: int) -> None:
        """Count one word."""
        self.words += 1
        self.without += without
        self.keys += keys

    @property
    def saved(self) -> float:
        """The keystroke saving rate in per cent."""
        return 100 * (self.without - self.keys) / self.without


@dataclass
class Figures:
    """What typing a text came to."""

    all: Tally = field(default_factory=Tally)
    """Words, punctuation and line ends."""
    lettered: Tally = field(default_factory=Tally)
    """Words with a letter or a digit."""
    unknown: int = 0
    """Words that no suggestion can be."""
    line_ends: int = 0
    left_out: int = 0
    at_once: int = 0
    """Words shown before anything was typed."""
    tokens: int = 0
    log_likelihood: float = 0.0

    def count(self, word: Word, typed: int | None) -> None:
        """Count a word of which so many characters were typed, or all."""
        without = len(word.spelling) + 1
        keys = without if typed is None else typed + 1
        self.all.add(without, keys)
        if any(map(str.isalnum, word.spelling)):
            self.lettered.add(without, keys)
        self.line_ends += not word.spelling
        self.unknown += bool(word.spelling) and word.token is None
        self.at_once += typed == 0

    def record(self) -> dict[str, Any]:
        """The counts, and the rates that follow from them."""
        words = self.all.words - self.line_ends
        return {
            "saved_percent": self.all.saved,
            "saved_percent_of_lettered_words": self.lettered.saved,
            "shown_at_once_percent": 100 * self.at_once / words,
            "unknown_percent": 100 * self.unknown / words,
            "perplexity": math.exp(-self.log_likelihood / self.tokens),
            "words": words,
            "line_ends": self.line_ends,
            "left_out": self.left_out,
            "unknown": self.unknown,
            "shown_at_once": self.at_once,
            "keys_without": self.all.without,
            "keys_with": self.all.keys,
            "lettered_words": self.lettered.words,
            "lettered_keys_without": self.lettered.without,
            "lettered_keys_with": self.lettered.keys,
            "tokens_read": self.tokens,
        }


class Suggested:
    """What the service would show to somebody who types, by `app.suggestions`' rule for words of one token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._special = np.flatnonzero([vocabulary.is_special(token) for token in range(len(vocabulary))])
        self._completions = cache(vocabulary.completions)
        self._begins = vocabulary.begins

    def typed(self, likely: Floats, word: Word, own: OwnWords = NO_WORDS) -> int | None:
        """How many characters of a word are typed when it is first shown, by `likely` [V]; None if it never is.

        A user's `own` words are shown too.
        """
        others = list(zip(own.spellings, own.log_probabilities, strict=True))
        if word.token is not None:
            value = float(likely[word.token])
            before = likely > value
            before[: word.token] |= likely[: word.token] == value
            ahead = [spelling for spelling, other in others if other > value]
        elif word.spelling in own.spellings:
            place = own.spellings.index(word.spelling)
            value = own.log_probabilities[place]
            before = likely >= value
            ahead = [it for at, (it, other) in enumerate(others) if other > value or (other == value and at < place)]
        else:
            return None
        before[self._special] = False
        for typed in range(len(word.spelling)):
            prefix = word.spelling[:typed]
            rivals = before[self._completions(prefix)] if typed else before
            if np.count_nonzero(rivals) + sum(self._begins(it, prefix) for it in ahead) < SHOWN:
                return typed
        return None


def text_of(text: str, convention: Convention, vocabulary: Vocabulary) -> Text:
    """A corpus's text as `vocabulary` reads it."""
    tokens = vocabulary.tokenise(text, final_newline=True)
    firsts = np.flatnonzero(np.diff(tokens.words, prepend=-1)).tolist()
    words = []
    for first, after in zip(firsts, [*firsts[1:], len(tokens)], strict=True):
        typed = text[tokens.starts[first] : tokens.ends[after - 1]]
        if typed == UNK or (typed == NUMBER and convention is Convention.PTB):
            continue
        spelling = "" if typed == "\n" else surface(typed, convention)
        token = int(tokens.ids[first])
        words.append(Word(first, spelling, token if vocabulary.surface(token) == spelling else None))
    return Text(tokens.ids, words, left_out=len(firsts) - len(words))


def type_text(rows: Rows, text: Text, suggested: Suggested) -> Figures:
    """Type a text as a model's `rows` suggest its words."""
    figures = Figures(left_out=text.left_out, tokens=len(text.ids))
    waiting = iter(text.words)
    word = next(waiting, None)
    start = 0
    for block in rows(text.ids):
        end = start + len(block)
        read = block[np.arange(len(block)), text.ids[start:end]]
        figures.log_likelihood += float(read.sum(dtype=np.float64))
        while word is not None and word.place < end:
            figures.count(word, suggested.typed(block[word.place - start], word))
            word = next(waiting, None)
        start = end
    return figures


def engine_rows(engine: Engine, eos_id: int) -> Rows:
    """A bundle's model, which reads a text as one stream from the initial `<eos>`."""

    def rows(ids: Ids) -> Iterator[Floats]:
        before = np.concatenate(([eos_id], ids[:-1]), dtype=np.int32)
        state = np.zeros((1, engine.state_size), np.float32)
        for start in range(0, len(ids), ROWS):
            read = before[None, start : start + ROWS]
            hidden, state = engine.advance(read, np.array([read.shape[1]], np.int32), state)
            yield engine.log_probabilities(hidden[0])

    return rows


def unigram_rows(ids: Ids, vocabulary_size: int) -> Rows:
    """Each word's share of the text `ids` [n], whatever came before."""
    with np.errstate(divide="ignore"):
        likely = np.log(np.bincount(ids, minlength=vocabulary_size) / len(ids)).astype(np.float32)

    def rows(ids: Ids) -> Iterator[Floats]:
        for start in range(0, len(ids), ROWS):
            yield np.broadcast_to(likely, (len(ids[start : start + ROWS]), vocabulary_size))

    return rows


def corpus(name: str) -> Corpus:
    """A benchmark corpus from PRU_DATA_DIR, or else from its public address; `CorpusError` for any other text."""
    folder = os.environ.get("PRU_DATA_DIR")
    found = load_corpus(str(Path(folder) / name) if folder else name)
    if found.own:
        raise CorpusError(f"{folder}/{name} holds other text; leave PRU_DATA_DIR unset to fetch the corpus's own")
    return found


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print a table of records."""
    columns = {
        "keys saved": "saved_percent",
        "of lettered words": "saved_percent_of_lettered_words",
        "shown at once": "shown_at_once_percent",
        "unknown": "unknown_percent",
    }
    table = Table("text", "model", *columns, "perplexity")
    for result in results:
        shares = (f"{result[name]:.1f}%" for name in columns.values())
        table.add_row(result["text"], result["model"], *shares, f"{result['perplexity']:.1f}")
    Console().print(table)


def main() -> None:
    """Measure, print and write the record."""
    bundle = open_bundle(BUNDLE)
    vocabulary = bundle.vocabulary()
    wikitext, treebank = corpus("wikitext-2"), corpus("ptb")
    train = vocabulary.encode(wikitext.splits["train"])
    engine = load_engine(bundle, PRECISION, threads=1)
    models: dict[str, Rows] = {
        f"the bundled model, {PRECISION}": engine_rows(engine, vocabulary.eos_id),
        f"modified Kneser-Ney {ORDER}-gram": KneserNey(train, vocabulary.eos_id, len(vocabulary), ORDER).rows,
        "unigram": unigram_rows(train, len(vocabulary)),
    }
    suggested = Suggested(vocabulary)
    results = []
    for known, split in ((wikitext, "test"), (treebank, "valid")):
        text = text_of(known.splits[split], known.convention, vocabulary)
        for name, rows in models.items():
            began = time.perf_counter()
            figures = type_text(rows, text, suggested)
            results.append({"text": f"{known.name} {split}", "model": name, **figures.record()})
            print(f"{known.name} {split}, {name}: typed in {time.perf_counter() - began:.0f} s", flush=True)
    show(results)
    identity = {"name": bundle.manifest.name, "sha256": bundle.sha256, "engine": engine.name, "precision": PRECISION}
    write_json(RECORD, {"suggestions": SHOWN, "bundle": identity, "results": results})


if __name__ == "__main__":
    with errors_in_one_line():
        main()
