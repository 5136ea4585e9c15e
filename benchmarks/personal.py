"""`python -m benchmarks.personal`: keystrokes saved and perplexity with and without personal words.

Boundary: as `benchmarks.keystrokes`, whose rules of typing these are, of the bundled model and with the first tokens of
each text; what is personal is the service's own `app.sessions.memory`, at the settings' defaults. Prints tables and
writes `benchmarks/results/personal.json`.

A user's text is one session, from its beginning: an article of WikiText-2's test text; all of the Penn Treebank's
validation text, whose articles are not told apart, in lower case; an article of the Wall Street Journal from NLTK's
sample of the Treebank (`nltk/treebank.zip` of PRU_DATA_DIR, left out where it is not there), and all its articles as
one session. Only the last has its rare words: WikiText-2's and the Penn Treebank's stand as `<unk>` in their text, so
that no word of WikiText-2's is outside the vocabulary, and of the other those that WikiText-2 lacks. The Journal's
plain text is typed as the service cuts it, punctuation apart.

With personal words a word outside the vocabulary can be shown, once it was typed before. Perplexity counts every such
word as `<unk>` with and without, so that the two are of the same events.

The cache's lambda and theta were chosen here, by the perplexity of WikiText-2's validation articles; the record tells
that of each choice. What it costs to append a word is measured over HTTP, with the sessions in a file.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from app.engines import Engine, load_engine
from app.personal import Adaptation, shares
from app.sessions.memory import Memory, Recall, own_words_of
from app.settings import Settings
from benchmarks.client import Connection, post
from benchmarks.keystrokes import BUNDLE, PRECISION, ROOT, ROWS, SHOWN, Figures, Suggested, corpus, show, text_of
from benchmarks.server import serving
from model.bundle import open_bundle
from model.command_line import errors_in_one_line
from model.conventions import Convention
from model.files import write_json
from model.vocabulary import Vocabulary
from pru import PRUClient

RECORD = ROOT / "benchmarks" / "results" / "personal.json"
JOURNAL = Path("nltk", "treebank.zip")
MOST_TOKENS = 100_000
"""Tokens typed of each text, about: whole articles."""
COST_WORDS, APPENDS = 1500, 500
"""Words of a session whose appends are timed, and how many of them."""
LAMBDAS, THETAS, WINDOWS = (0.05, 0.1, 0.15, 0.2, 0.25), (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8), (200, 500, 1000)

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_HEADING = re.compile(r"^ = [^=].*[^=] = *$", re.MULTILINE)


def articles(text: str) -> Iterator[str]:
    """The articles of a WikiText, each from its title on."""
    starts = [found.start() for found in _HEADING.finditer(text)]
    for start, stop in itertools.pairwise([*starts, len(text)]):
        yield text[start:stop]


def journal(path: Path, vocabulary: Vocabulary) -> Iterator[str]:
    """The articles of the Wall Street Journal in NLTK's sample, in corpus lines."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if re.search(r"/raw/wsj_\d+$", name)):
            yield corpus_lines(archive.read(name).decode("latin-1").removeprefix(".START"), vocabulary)


def corpus_lines(text: str, vocabulary: Vocabulary) -> str:
    """Plain text as a corpus writes it: a blank between tokens, and those that are unknown as they were typed."""
    lines = []
    for line in text.splitlines():
        tokens = vocabulary.tokenise(line)
        columns = zip(tokens.ids.tolist(), tokens.starts, tokens.ends, tokens.unknown, strict=True)
        lines.append(
            " ".join(line[start:end] if unknown else vocabulary.word_of(it) for it, start, end, unknown in columns)
        )
    return "".join(f"{line}\n" for line in lines if line)


def first(texts: Iterable[str], vocabulary: Vocabulary, most: int) -> list[str]:
    """Texts up to and with the one that reaches `most` tokens."""
    found, tokens = [], 0
    for text in texts:
        if tokens >= most:
            break
        found.append(text)
        tokens += len(vocabulary.tokenise(text, final_newline=True))
    return found


def read(engine: Engine, eos_id: int, ids: Ids) -> Iterator[tuple[Floats, Floats]]:
    """The hidden vector [E] before each token of a text and the log-probabilities [V] in its place."""
    before = np.concatenate(([eos_id], ids[:-1]), dtype=np.int32)
    state = np.zeros((1, engine.state_size), np.float32)
    for start in range(0, len(ids), ROWS):
        part = before[None, start : start + ROWS]
        hidden, state = engine.advance(part, np.array([part.shape[1]], np.int32), state)
        yield from zip(hidden[0], engine.log_probabilities(hidden[0]), strict=True)


def type_sessions(
    engine: Engine, vocabulary: Vocabulary, texts: Sequence[str], convention: Convention, given: Adaptation
) -> tuple[Figures, Figures]:
    """Type texts, each as a session: by the model alone, and with personal words."""
    suggested = Suggested(vocabulary)
    alone, personal = Figures(), Figures()
    for typed in texts:
        text = text_of(typed, convention, vocabulary)
        for figures in (alone, personal):
            figures.left_out += text.left_out
            figures.tokens += len(text.ids)
        words = {word.place: word for word in text.words}
        own = {word.index: word for word in own_words_of(typed, vocabulary.tokenise(typed, final_newline=True))}
        memory = Memory.nothing(engine.hidden_size)
        for place, (vector, likely) in enumerate(read(engine, vocabulary.eos_id, text.ids)):
            token_id = int(text.ids[place])
            recall = Recall(memory, given, vocabulary.unk_id)
            alone.log_likelihood += float(likely[token_id])
            personal.log_likelihood += float(recall.mixed(vector, likely)[token_id])
            if (word := words.get(place)) is not None:
                alone.count(word, suggested.typed(likely, word))
                values, others = recall.suggested(vector, likely)
                personal.count(word, suggested.typed(values, word, others))
            memory = memory.learn(vector[None], text.ids[place : place + 1], place)
            memory = memory.note([own[place]] if place in own else [], 0).cut(given.window)
    return alone, personal


def perplexities(engine: Engine, vocabulary: Vocabulary, texts: Sequence[str]) -> list[dict[str, float]]:
    """Perplexity of texts, each a session, by the model alone, and for every choice of the cache's settings."""
    choices = list(itertools.product(WINDOWS, THETAS))
    alone, totals = 0.0, np.zeros((len(choices), len(LAMBDAS)))
    count, weights = 0, np.array(LAMBDAS)
    for text in texts:
        ids = vocabulary.tokenise(text, final_newline=True).ids
        known = np.empty((len(ids), engine.hidden_size), np.float32)
        for place, (vector, likely) in enumerate(read(engine, vocabulary.eos_id, ids)):
            known[place] = vector
            own = math.exp(float(likely[ids[place]]))
            alone += math.log(own)
            for row, (window, theta) in enumerate(choices if place else []):
                past = slice(max(0, place - window), place)
                cached = shares(known[past], vector, theta)[ids[past] == ids[place]].sum()
                totals[row] += np.log((1 - weights) * own + weights * cached)
            totals += 0.0 if place else math.log(own)
        count += len(ids)
    rows = [{"lambda": 0.0, "perplexity": math.exp(-alone / count)}]
    for (window, theta), sums in zip(choices, totals.tolist(), strict=True):
        for weight, total in zip(LAMBDAS, sums, strict=True):
            perplexity = math.exp(-total / count)
            rows.append({"window": window, "theta": theta, "lambda": weight, "perplexity": perplexity})
    return rows


def sessions_of(vocabulary: Vocabulary) -> Iterator[tuple[str, Convention, list[str]]]:
    """What is typed: a name, how it is written, and the text of each session."""
    wikitext, treebank = corpus("wikitext-2"), corpus("ptb")
    yield "wikitext-2 test", wikitext.convention, first(articles(wikitext.splits["test"]), vocabulary, MOST_TOKENS)
    yield "ptb valid", treebank.convention, [beginning(treebank.splits["valid"], vocabulary, MOST_TOKENS)]
    path = Path(os.environ.get("PRU_DATA_DIR", ""), JOURNAL)
    if not path.is_file():
        print(f"Left out: the Wall Street Journal. It needs {JOURNAL} in PRU_DATA_DIR.")
        return
    stories = first(journal(path, vocabulary), vocabulary, MOST_TOKENS)
    yield "Wall Street Journal, an article a session", Convention.WIKITEXT, stories
    yield "Wall Street Journal, one session", Convention.WIKITEXT, ["".join(stories)]


def beginning(text: str, vocabulary: Vocabulary, most: int) -> str:
    """A text's first lines, up to and with the one that reaches `most` tokens."""
    return "".join(first(text.splitlines(keepends=True), vocabulary, most))


def append_cost(words: Sequence[str]) -> dict[str, float]:
    """What one more word costs in a session that is full: median milliseconds, taken in turn, and stored bytes."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, serving(BUNDLE, 1, Path(name) / "server") as server:
        client = PRUClient(f"http://127.0.0.1:{server.port}")
        start = " ".join(words[:-APPENDS])
        sessions = {"plain": client.session(start), "personal": client.session(start, personal=True)}
        waits: dict[str, list[float]] = {kind: [] for kind in sessions}
        with Connection(server.port) as connection:
            for word, (kind, session) in itertools.product(words[-APPENDS:], sessions.items()):
                request = post(f"/sessions/{session.id}/append", text=word)
                began = time.perf_counter()
                connection.ask(request)
                waits[kind].append(time.perf_counter() - began)
        for kind, session in sessions.items():
            found[f"{kind}_milliseconds"] = 1e3 * statistics.median(waits[kind])
            found[f"{kind}_bytes"] = len(session.export())
        client.close()
    return found


def main() -> None:
    """Measure, print and write the record."""
    settings = Settings()
    given = Adaptation(settings.personal_window, settings.personal_lambda, settings.personal_theta)
    bundle = open_bundle(BUNDLE)
    vocabulary = bundle.vocabulary()
    engine = load_engine(bundle, PRECISION, threads=1)
    valid = first(articles(corpus("wikitext-2").splits["valid"]), vocabulary, MOST_TOKENS // 2)
    choices = perplexities(engine, vocabulary, valid)
    table = Table("window", "theta", "lambda", "perplexity", title="WikiText-2, validation articles")
    for row in sorted(choices, key=lambda row: row["perplexity"]):
        table.add_row(*(str(row.get(name, "")) for name in ("window", "theta", "lambda")), f"{row['perplexity']:.2f}")
    Console().print(table)
    results = []
    for name, convention, texts in sessions_of(vocabulary):
        began = time.perf_counter()
        figures = type_sessions(engine, vocabulary, texts, convention, given)
        for model, found in zip(("the model alone", "with personal words"), figures, strict=True):
            results.append({"text": name, "sessions": len(texts), "model": model, **found.record()})
        print(f"{name}: typed in {time.perf_counter() - began:.0f} s", flush=True)
    show(results)
    cost = append_cost(valid[0].split()[:COST_WORDS])
    print(json.dumps(cost))
    identity = {"name": bundle.manifest.name, "sha256": bundle.sha256, "engine": engine.name, "precision": PRECISION}
    used = {"window": given.window, "lambda": given.weight, "theta": given.theta}
    told = {"suggestions": SHOWN, "bundle": identity, "settings": used, "append": cost}
    write_json(RECORD, {**told, "choices": choices, "results": results})


if __name__ == "__main__":
    with errors_in_one_line():
        main()
