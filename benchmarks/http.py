"""`python -m benchmarks.http [--rounds N] [--out FILE]`: the service under load, over real sockets of this machine.

Boundary: comparisons of one server with itself here; what keys, traces and metrics cost, and a swap of models, are
measured by `benchmarks.keys`, `benchmarks.observed` and `benchmarks.swap`. The client shares the cores with the server,
and is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from app.settings import usable_cores
from benchmarks import harness, keys, observed, swap
from benchmarks.asking import CLIENTS, SECONDS, WORDS, appends, create, predictions, words
from benchmarks.client import Connection, get
from benchmarks.harness import Row, at_least, at_most, shown
from benchmarks.load import Load, StreamClient
from benchmarks.scale import scale_rows
from benchmarks.server import Server, serving

BUNDLED = Path(__file__).parents[1] / "bundles" / "wikitext-2"
CORES = usable_cores()
Work = tuple[Callable[[int, int, float], Coroutine[Any, Any, Load]], int]
"""A load, given a port, a number of clients and seconds, and the number of clients."""


async def beside_a_long_text(port: int, seconds: float) -> tuple[Load, Load]:
    """Appends of one client without and with a text of 100,000 words being scored."""
    quiet = await appends(port, 1, seconds)
    other = await StreamClient.connect(port)
    scoring = asyncio.create_task(other.post("/perplexity", {"text": words(100_000)}))
    await asyncio.sleep(0.5)
    busy = await appends(port, 1, seconds)
    if scoring.done():
        raise RuntimeError("the long text was scored before the appends ended; measure for fewer seconds")
    scoring.cancel()
    other.close()
    return quiet, busy


async def first_words(port: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds of an append, and until the first event of a stream."""
    client = await StreamClient.connect(port)
    session = await create(client, words(5))
    appended, streamed = [], []
    for _ in range(count):
        began = time.perf_counter()
        await client.post(f"/sessions/{session}/append", {"text": random.choice(WORDS)})
        appended.append(time.perf_counter() - began)
        began = time.perf_counter()
        await client.first_token(f"/sessions/{session}/continue", {"max_tokens": 3, "stream": True, "commit": False})
        streamed.append(time.perf_counter() - began)
        await client.rest()
    client.close()
    return appended, streamed


async def many_sessions(port: int) -> tuple[float, float]:
    """Seconds to store 10,000 sessions, and to append a word to 1,000 of them at once."""
    clients = [await StreamClient.connect(port) for _ in range(CLIENTS)]
    sessions: list[str] = []

    async def fill(client: StreamClient) -> None:
        while len(sessions) < 10_000:
            sessions.append(await create(client, random.choice(WORDS)))

    began = time.perf_counter()
    await asyncio.gather(*map(fill, clients))
    stored = time.perf_counter() - began
    open_at_once = [await StreamClient.connect(port) for _ in range(200)]
    began = time.perf_counter()
    for start in range(0, 1000, 200):
        await asyncio.gather(
            *(
                client.post(f"/sessions/{session}/append", {"text": "the"})
                for client, session in zip(open_at_once, sessions[start:], strict=False)
            )
        )
    return stored, time.perf_counter() - began


def _middle(loads: list[Load], share: float) -> float:
    return statistics.median(one.quantile(share) for one in loads)


def _interleaved(server: Server, rounds: int, work: dict[str, Work]) -> dict[str, list[Load]]:
    """What came of each of some loads, one after another, for some rounds."""
    found: dict[str, list[Load]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (load, clients) in work.items():
            found[name].append(uvloop.run(load(server.port, clients, SECONDS)))
    return found


def append_rows(server: Server, rounds: int, setup: str) -> list[Row]:
    """What many clients gain that append at once."""
    found = _interleaved(server, rounds, {"1": (appends, 1), "32": (appends, CLIENTS)})
    rate = {name: statistics.median(one.rate for one in loads) for name, loads in found.items()}
    return [
        at_least(
            f"append of one word, {setup}: requests a second of 32 clients / of one",
            f"{rate['32']:,.0f}/s, {rate['1']:,.0f}/s",
            rate["32"] / rate["1"],
            2.5,
        ),
        at_most(
            f"append of one word, {setup}, 32 clients: p99 / p50",
            f"{_middle(found['32'], 0.99) * 1e3:.1f} ms, {_middle(found['32'], 0.5) * 1e3:.1f} ms",
            _middle(found["32"], 0.99) / _middle(found["32"], 0.5),
            4,
        ),
    ]


def rows(server: Server, rounds: int) -> list[Row]:
    """Every other comparison on one server, medians of some rounds."""
    found = _interleaved(server, rounds, {"1": (predictions, 1), "32": (predictions, CLIENTS)})
    rate = {name: statistics.median(one.rate for one in loads) for name, loads in found.items()}
    pairs = [uvloop.run(beside_a_long_text(server.port, SECONDS)) for _ in range(rounds)]
    quiet, busy = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    appended, streamed = uvloop.run(first_words(server.port, 200))
    stored, at_once = uvloop.run(many_sessions(server.port))
    append, first = statistics.median(appended), statistics.median(streamed)
    return [
        at_least(
            "predict after ten unseen words: requests a second of 32 clients / of one",
            f"{rate['32']:,.0f}/s, {rate['1']:,.0f}/s",
            rate["32"] / rate["1"],
            2,
        ),
        at_most(
            "append of one word while 100,000 words are scored: p99 / p99 without",
            f"{_middle(busy, 0.99) * 1e3:.1f} ms, {_middle(quiet, 0.99) * 1e3:.1f} ms",
            _middle(busy, 0.99) / _middle(quiet, 0.99),
            3,
        ),
        at_most(
            "first event of a stream / an append (two steps more are allowed)",
            f"{first * 1e3:.2f} ms, {append * 1e3:.2f} ms",
            first / append,
            2,
        ),
        shown(
            "10,000 sessions stored / 1,000 of them appended to by 200 clients",
            f"{stored:.1f} s, {at_once:.1f} s",
            stored / at_once,
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of every load")
    parser.add_argument("--out", type=Path, help="JSON file for the rows, with what machine they are of")
    options = parser.parse_args()
    rounds, console = options.rounds, Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        under_load, left_out = _under_load(folder, rounds)
        # Swaps leave two copies of the bundle; each of the three has servers of its own, which write there.
        own = [folder / what for what in ("keys", "observed", "swap")]
        for one in own:
            one.mkdir()
        tables = {
            "bundled model over HTTP": under_load,
            keys.TITLE: [*keys.rows(own[0], rounds), *observed.rows(own[1], 2 * rounds)],
            swap.TITLE: swap.rows(own[2], BUNDLED, 2 * rounds),
        }
    for title, found in tables.items():
        harness.show(title, found, console)
    for line in left_out:
        console.print(line)
    if options.out:
        harness.record(options.out, tables)


def _under_load(folder: Path, rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of servers under load, and what was left out."""
    found: list[Row] = []
    for workers, threads, setup in ((1, CORES, "one worker"), (CORES, 1, f"{CORES} workers of a thread each")):
        own = folder / str(workers)
        with serving(BUNDLED, threads, own / "batch", workers) as server:
            uvloop.run(appends(server.port, CLIENTS, SECONDS))
            found.append(_mean_batch(server, setup))
        with serving(BUNDLED, threads, own / "load", workers) as server:
            found += append_rows(server, rounds, setup)
            if workers == 1:
                found += rows(server, rounds)
    (folder / "scale").mkdir()
    rows_of_scale, left_out = scale_rows(BUNDLED, folder / "scale", rounds)
    return found + rows_of_scale, left_out


def _mean_batch(server: Server, setup: str) -> Row:
    """Rows that a call of the engine had, by the service's own count."""
    with Connection(server.port) as connection:
        families = text_string_to_metric_families(connection.ask(get("/metrics")).decode())
    samples = [sample for family in families if family.name == "pru_batch_rows" for sample in family.samples]
    rows, calls = (sum(s.value for s in samples if s.name == f"pru_batch_rows_{what}") for what in ("sum", "count"))
    label = f"append of one word, {setup}, 32 clients: rows / call"
    return at_least(label, f"{rows:,.0f} / {calls:,.0f}", rows / calls, 8)


if __name__ == "__main__":
    main()
