"""The service over real sockets: what HTTP adds to the engine's time, and what a server takes to start and to run.

Boundary: one bundle, served by processes of their own; the clients are here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from app.engines import load_engine
from benchmarks.client import Connection, get, post
from benchmarks.harness import Row, at_most, milliseconds
from benchmarks.server import Server, serving
from model.bundle import open_bundle
from model.vocabulary import Ids, Vocabulary

THREADS = 2
TOP = 5
TEXT_WORDS = 12
TEXTS = 100
"""Texts a round."""
STARTS = 3
CLIENTS = 4
LOAD_SECONDS = 4.0
START_SECONDS = 5
"""Longest start of the service."""
PEAK_MEGABYTES = 400
"""Most memory of a serving process; pods of `deploy/kubernetes` are given it, and their prefix cache's besides."""


def rows(folder: Path, bundle: Path, rounds: int) -> list[Row]:
    """Every figure of the service that serves `bundle`; its processes write into `folder`."""
    vocabulary = open_bundle(bundle).vocabulary()
    return [_overhead(folder, bundle, vocabulary, rounds), *_processes(folder, bundle, vocabulary)]


def _overhead(folder: Path, bundle: Path, vocabulary: Vocabulary, rounds: int) -> Row:
    """A client's wait for `/predict` less the engine's own time for the same text, against its wait for a bare answer.

    Both waits are from the request's first byte sent to the answer's last byte read, over one connection. So what is
    counted is all that the service does besides its engine: HTTP, the log, checking, reading the text, the way to the
    engine's thread and back, and the answer. The engine's time is that of reading the same tokens and finding
    the best five in this process. The three are timed in turn, text by text: each then finds the processor's caches and
    cores as the others left them, as the engine does in a server that also speaks HTTP. A bare answer that follows
    another is faster still, and shown beside it. Texts are of words drawn evenly from the whole vocabulary and none
    comes twice, so nothing is remembered of them.
    """
    engine = load_engine(open_bundle(bundle), "auto", THREADS)
    zeros = np.zeros((1, engine.state_size), np.float32)
    texts = _texts(vocabulary, seed=6)
    live = get("/health/live")

    def compute(ids: Ids) -> None:
        hidden, _ = engine.advance(ids, np.array([ids.shape[1]], np.int32), zeros)
        engine.top_k(hidden[:, -1], TOP)

    waits: dict[str, list[float]] = {"predict": [], "live": [], "engine": [], "live_after_live": []}
    with serving(bundle, THREADS, folder / "overhead") as server, Connection(server.port) as connection:

        def measure(text: str) -> None:
            request = post("/predict", text=text, k=TOP)
            ids = np.concatenate([np.array([vocabulary.eos_id], np.int32), vocabulary.tokenise(text).ids])[None]
            waits["predict"].append(_seconds(lambda: connection.ask(request)))
            waits["live"].append(_seconds(lambda: connection.ask(live)))
            waits["engine"].append(_seconds(lambda: compute(ids)))

        for _ in range(rounds):
            for _ in range(TEXTS):
                measure(next(texts))
            waits["live_after_live"] += [_seconds(lambda: connection.ask(live)) for _ in range(TEXTS)]
    medians = {name: statistics.median(seconds) for name, seconds in waits.items()}
    return at_most(
        "/predict, one client, unseen texts: p50 less the engine's, against /health/live",
        milliseconds(**medians),
        (medians["predict"] - medians["engine"]) / medians["live"],
        3,
    )


def _processes(folder: Path, bundle: Path, vocabulary: Vocabulary) -> list[Row]:
    """How long a server takes to start, and its largest resident memory once clients asked it for some seconds."""
    starts, peaks = [], []
    for index in range(STARTS):
        with serving(bundle, THREADS, folder / f"start-{index}") as server:
            starts.append(server.start_seconds)
            _load(server, vocabulary)
            peaks.append(server.peak_bytes() / 1e6)
    return [
        at_most(
            "`python -m app`: from its start to ready",
            f"{STARTS} starts: {', '.join(f'{seconds:.2f}' for seconds in starts)} s",
            statistics.median(starts),
            START_SECONDS,
            " s",
        ),
        at_most(
            f"resident memory, peak under load ({CLIENTS} clients, /predict and /perplexity of 32 x 32)",
            f"{STARTS} starts: {', '.join(f'{peak:.0f}' for peak in peaks)} MB",
            statistics.median(peaks),
            PEAK_MEGABYTES,
            " MB",
        ),
    ]


def _load(server: Server, vocabulary: Vocabulary) -> None:
    """Ask for predictions and scores from several clients at once, all the time."""
    end = time.monotonic() + LOAD_SECONDS

    def ask(seed: int) -> None:
        short, long = _texts(vocabulary, seed), _texts(vocabulary, seed + CLIENTS, words=32)
        with Connection(server.port) as connection:
            while time.monotonic() < end:
                connection.ask(post("/predict", text=next(short)))
                connection.ask(post("/perplexity", texts=[next(long) for _ in range(32)]))

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(ask, range(CLIENTS)))


def _texts(vocabulary: Vocabulary, seed: int, words: int = TEXT_WORDS) -> Iterator[str]:
    """Texts of plain words, so of one token a word, without end."""
    known = [word for word in vocabulary.words if word.isalpha()]
    generator = np.random.default_rng(seed)
    while True:
        yield " ".join(known[index] for index in generator.integers(len(known), size=words))


def _seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
