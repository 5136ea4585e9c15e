"""`python -m benchmarks.observed [--rounds N]`: what keys, traces and scraped metrics cost together, over real sockets.

Boundary: servers that are watched against one that is not, asked in turn. The collector only takes what it is sent; it
and the client share the cores with the servers, so that what they do for traces counts against these.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvloop
from rich.console import Console

from app.access.key_file import new_key
from app.settings import usable_cores
from benchmarks.asking import CLIENTS, SECONDS, predictions
from benchmarks.client import Connection, get
from benchmarks.harness import Row, at_least, show
from benchmarks.keys import BUNDLED, TITLE
from benchmarks.load import Load
from benchmarks.server import serving

SCRAPE_SECONDS = 1.0
"""Between two scrapes: five times as often as Prometheus is told to."""
ONE_IN_TWENTY = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector that takes whatever it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def watched(port: int, key: str) -> Load:
    """Predictions while the metrics are scraped."""

    def scrape() -> None:
        with Connection(port) as connection:
            connection.ask(get("/metrics"))

    async def scrapes() -> None:
        while True:
            await asyncio.to_thread(scrape)
            await asyncio.sleep(SCRAPE_SECONDS)

    scraping = asyncio.create_task(scrapes())
    try:
        return await predictions(port, CLIENTS, SECONDS, key)
    finally:
        scraping.cancel()


def rows(folder: Path, rounds: int) -> list[Row]:
    """Predictions a second with all three, and with none; medians of some rounds."""
    key, digest = new_key()
    grant = f'[keys]\n{digest} = {{ name = "load" }}\n'
    threads = usable_cores()
    with collector() as url:
        send = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        with (
            serving(BUNDLED, threads, folder / "none") as none,
            serving(BUNDLED, threads, folder / "some", keys=grant, variables=send | ONE_IN_TWENTY) as some,
            serving(BUNDLED, threads, folder / "all", keys=grant, variables=send) as every,
        ):
            rates: dict[str, list[float]] = {"none": [], "some": [], "all": []}
            for number in range(rounds + 1):
                loads = {
                    "none": uvloop.run(predictions(none.port, CLIENTS, SECONDS)),
                    "some": uvloop.run(watched(some.port, key)),
                    "all": uvloop.run(watched(every.port, key)),
                }
                if number:  # The first round warms up.
                    for name, load in loads.items():
                        rates[name].append(load.rate)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    what = f"predict after ten unseen words, {CLIENTS} clients, keys and scrapes, requests a second: "

    def figures(name: str) -> str:
        return f"{middle[name]:,.0f}/s, {middle['none']:,.0f}/s"

    return [
        at_least(f"{what}one in twenty traced / none of it", figures("some"), middle["some"] / middle["none"], 0.9),
        at_least(f"{what}all traced / none of it", figures("all"), middle["all"] / middle["none"], 0.9),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved runs of every load")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        show(TITLE, rows(Path(name), rounds), Console())


if __name__ == "__main__":
    main()
