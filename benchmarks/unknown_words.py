"""`python -m benchmarks.unknown_words`: how often the right one of two texts scores higher, by the penalty of a word
that the vocabulary lacks.

Boundary: the bundled model, as `POST /perplexity` scores each text from a fresh start with `oov_penalty`; sentences of
WikiText-2 and of the Wall Street Journal in NLTK's sample of the Penn Treebank (`nltk/treebank.zip`), both of
PRU_DATA_DIR. Prints a table and writes `benchmarks/results/unknown_words.json`.

The model gives one probability to all words that it does not know, and every one of them has it whole. So a text that
was misread into a word that does not exist scores too high, and a penalty is what such a word's spelling would cost. It
must not be so high that a rare word which is right always loses against a known one. Pairs of texts measure both:

- misread: a sentence all of whose words are known, and the same with one word changed into none of the vocabulary's, as
  optical recognition confuses letters (`CONFUSED`) or as typing does (one letter left out, exchanged with the next,
  replaced or put in: the edits of Damerau, 1964), either half of the time.
- rare: a sentence with one unknown word, and the same with the known word of the most similar spelling in its place: of
  those one edit away, or else two, the most frequent in WikiText-2, as by the spelling corrector of Norvig (2007).
  WikiText-2 has none, since its own rare words stand as `<unk>`.

Right is each time the sentence as it was.

The penalty is chosen, among whole nats, by the mean of both kinds' shares on the Journal's even articles and
WikiText-2's validation text; all other figures are of its odd articles and WikiText-2's test text.
"""

from __future__ import annotations

import os
import random
import re
import string
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from app.corpus.scorer import Scorer
from app.engines import load_engine
from app.scoring import Likelihood
from benchmarks.keystrokes import BUNDLE, PRECISION, ROOT, corpus
from benchmarks.personal import JOURNAL
from model.bundle import open_bundle
from model.command_line import errors_in_one_line
from model.errors import CorpusError
from model.files import write_json
from model.vocabulary import Vocabulary

RECORD = ROOT / "benchmarks" / "results" / "unknown_words.json"
PENALTIES = range(13)
"""Nats for each unknown token."""
MOST_PAIRS = 1500
"""Of each kind, text and part."""
WORDS = range(6, 41)
"""Words that a sentence has."""
SEED = 1
CONFUSED = {
    "l": "1", "i": "l", "o": "0", "e": "c", "c": "e", "h": "b", "b": "h", "s": "5", "g": "q", "u": "n", "n": "u",
    "m": "rn", "rn": "m", "d": "cl", "cl": "d", "w": "vv", "t": "f", "f": "t", "a": "o", "B": "8", "S": "5", "I": "l",
}  # fmt: skip
"""Letters that look alike in print, as optical recognition confuses them."""
_WORD = re.compile(r"(?<!\S)[A-Za-z]{4,}(?!\S)")


class Pair(NamedTuple):
    """A text, and another that it might be taken for."""

    right: str
    wrong: str


class Scored(NamedTuple):
    """The figures of a pair."""

    right: Likelihood
    wrong: Likelihood


def misread(sentence: str, vocabulary: Vocabulary, chance: random.Random) -> Pair | None:
    """A sentence and the same with one word that the vocabulary lacks; None where it has no word to change."""
    places = list(_WORD.finditer(sentence))
    chance.shuffle(places)
    change = chance.choice((confused, edits))
    for place in places:
        spellings = sorted(change(place[0]))
        chance.shuffle(spellings)
        for spelling in spellings:
            if unknown_words(spelling, vocabulary) == [spelling]:
                return Pair(sentence, sentence[: place.start()] + spelling + sentence[place.end() :])
    return None


def confused(word: str) -> set[str]:
    """A word's spellings with one letter, or two that look like one, taken for another."""
    return {
        word[:start] + other + word[start + len(letter) :]
        for letter, other in CONFUSED.items()
        for start in range(len(word))
        if word.startswith(letter, start)
    }


def rare(sentence: str, vocabulary: Vocabulary, counts: Counter[str]) -> Pair | None:
    """A sentence with one unknown word, and the same with a known one like it; None where there is none like it."""
    [word] = unknown_words(sentence, vocabulary)
    known = most_similar(word, counts)
    if known is None or len(re.findall(rf"\b{re.escape(word)}\b", sentence)) != 1:
        return None
    return Pair(sentence, re.sub(rf"\b{re.escape(word)}\b", known, sentence))


def most_similar(word: str, counts: Counter[str]) -> str | None:
    """The most frequent of the known words that are one edit away, or else two; None where there is none."""
    once = edits(word)
    if not (known := once & counts.keys()):
        known = {other for edited in once for other in edits(edited) if other in counts}
    return max(sorted(known), key=counts.__getitem__, default=None)


def edits(word: str) -> set[str]:
    """What one edit makes of a word: a letter left out, exchanged with the next, replaced or put in."""
    halves = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    return {
        *(a + b[1:] for a, b in halves if b),
        *(a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1),
        *(a + letter + b[1:] for a, b in halves if b for letter in string.ascii_lowercase),
        *(a + letter + b for a, b in halves for letter in string.ascii_lowercase),
    }


def unknown_words(text: str, vocabulary: Vocabulary) -> list[str]:
    """The tokens of a text that the vocabulary lacks, as they were typed."""
    tokens = vocabulary.tokenise(text)
    spans = zip(tokens.starts, tokens.ends, tokens.unknown, strict=True)
    return [text[start:end] for start, end, unknown in spans if unknown]


def sentences(text: str) -> Iterator[str]:
    """The sentences of a corpus's lines that name no `<unk>`, headings left out."""
    for line in text.splitlines():
        if not line.startswith(" ="):
            for sentence in re.split(r"(?<= [.?!] )", line):
                if "<unk>" not in sentence and len(sentence.split()) in WORDS:
                    yield sentence.strip()


def journal(path: Path, odd: int) -> Iterator[str]:
    """The sentences of the Journal's articles of odd or even numbers: a line each."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if (found := re.search(r"/raw/wsj_(\d+)$", name)) and int(found[1]) % 2 == odd:
                for line in archive.read(name).decode("latin-1").removeprefix(".START").splitlines():
                    if len(line.split()) in WORDS:
                        yield line.strip()


def pairs(
    texts: dict[str, list[str]], vocabulary: Vocabulary, counts: Counter[str]
) -> Iterator[tuple[str, str, list[Pair]]]:
    """Kind, text and pairs of each."""
    for name, all_sentences in texts.items():
        chance = random.Random(SEED)
        chance.shuffle(all_sentences)
        unknown = [unknown_words(sentence, vocabulary) for sentence in all_sentences]
        of = list(zip(all_sentences, unknown, strict=True))
        changed = (misread(sentence, vocabulary, chance) for sentence, words in of if not words)
        yield "misread", name, list(islice(filter(None, changed), MOST_PAIRS))
        replaced = (rare(sentence, vocabulary, counts) for sentence, words in of if is_one_word(words))
        if found := list(islice(filter(None, replaced), MOST_PAIRS)):
            yield "rare", name, found


def is_one_word(unknown: Sequence[str]) -> bool:
    """Whether what is unknown of a sentence is one word of letters."""
    return len(unknown) == 1 and _WORD.fullmatch(unknown[0]) is not None


def score(scorer: Scorer, found: Sequence[Pair]) -> list[Scored]:
    """The figures of both texts of each pair."""
    figures = list(scorer.score(text for pair in found for text in pair))
    return [Scored(*both) for both in zip(figures[::2], figures[1::2], strict=True)]


def share(scored: Sequence[Scored], penalty: float) -> float:
    """Of how many pairs the right text scores higher, in per cent."""
    return _percent([right.score(penalty) > wrong.score(penalty) for right, wrong in scored])


def _percent(right: Sequence[bool]) -> float:
    return 100 * sum(right) / len(right)


def shares(scored: Sequence[Scored]) -> dict[str, Any]:
    """The same for every penalty, and by the measures that have none."""
    return {
        "pairs": len(scored),
        "right_percent": {str(penalty): share(scored, penalty) for penalty in PENALTIES},
        "right_percent_by_perplexity": _percent([_less(p.perplexity, q.perplexity) for p, q in scored]),
        "right_percent_by_perplexity_without_oov": _percent(
            [_less(p.perplexity_without_oov, q.perplexity_without_oov) for p, q in scored]
        ),
    }


def _less(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


def best_penalty(results: Sequence[dict[str, Any]]) -> int:
    """The penalty by which both kinds of pairs are right most often, each kind counted alike."""

    def both(penalty: int) -> float:
        return mean(
            mean(float(result["right_percent"][str(penalty)]) for result in results if result["kind"] == kind)
            for kind in ("misread", "rare")
        )

    return max(PENALTIES, key=both)


def show(results: Sequence[dict[str, Any]], penalty: int) -> None:
    """Print a table of records."""
    table = Table("text", "pairs", "number", *map(str, PENALTIES), "without oov", caption=f"penalty chosen: {penalty}")
    for result in results:
        figures = [*result["right_percent"].values(), result["right_percent_by_perplexity_without_oov"]]
        table.add_row(result["text"], result["kind"], str(result["pairs"]), *(f"{figure:.1f}" for figure in figures))
    Console(width=140).print(table)


def main() -> None:
    """Measure, print and write the record."""
    bundle = open_bundle(BUNDLE)
    vocabulary = bundle.vocabulary()
    engine = load_engine(bundle, PRECISION, threads=1)
    scorer = Scorer(engine, vocabulary, include_eos=True)
    wikitext, archive = corpus("wikitext-2"), Path(os.environ.get("PRU_DATA_DIR", ""), JOURNAL)
    if not archive.is_file():
        raise CorpusError(f"{JOURNAL} is not in PRU_DATA_DIR; name the folder that holds it")
    counts = Counter({word: n for word, n in Counter(wikitext.splits["train"].split()).items() if word.isalpha()})
    parts = {
        part: {
            f"wikitext-2 {split}": list(sentences(wikitext.splits[split])),
            f"Wall Street Journal, {articles} articles": list(journal(archive, odd)),
        }
        for part, split, articles, odd in (("chosen on", "valid", "even", 0), ("measured on", "test", "odd", 1))
    }
    results: dict[str, list[dict[str, Any]]] = {}
    for part, texts in parts.items():
        results[part] = [
            {"text": text, "kind": kind, **shares(score(scorer, found))}
            for kind, text, found in pairs(texts, vocabulary, counts)
        ]
    penalty = best_penalty(results["chosen on"])
    for of_part in results.values():
        show(of_part, penalty)
    identity = {"name": bundle.manifest.name, "sha256": bundle.sha256, "engine": engine.name, "precision": PRECISION}
    write_json(RECORD, {"bundle": identity, "oov_penalty": penalty, **results})


if __name__ == "__main__":
    with errors_in_one_line():
        main()
