"""`python -m benchmarks.keys [--rounds N]`: what keys cost, over real sockets, on the machine it runs on.

Boundary: servers that need keys against one that does not, asked in turn. The client shares the cores with them,
and its own work makes the difference look smaller than it is to a client elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from app.access.key_file import new_key
from app.settings import usable_cores
from benchmarks.asking import CLIENTS, SECONDS, predictions
from benchmarks.harness import Row, at_least, show
from benchmarks.server import serving

BUNDLED = Path(__file__).parents[1] / "bundles" / "wikitext-2"
TITLE = "keys, traces and metrics of the bundled model"


def rows(folder: Path, rounds: int) -> list[Row]:
    """Predictions a second with keys, with keys and quotas, and without either; medians of some rounds."""
    key, digest = new_key()
    grant = f'[keys]\n{digest} = {{ name = "load" }}\n'
    quotas = "[limits.load]\nrequests_per_minute = 1_000_000\ntokens_per_minute = 100_000_000\n"
    threads = usable_cores()
    with (
        serving(BUNDLED, threads, folder / "open") as without,
        serving(BUNDLED, threads, folder / "keys", keys=grant) as needing,
        serving(BUNDLED, threads, folder / "quotas", keys=quotas + grant) as counting,
    ):
        ports = {"none": without.port, "keys": needing.port, "quotas": counting.port}
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for number in range(rounds + 1):
            for name, port in ports.items():
                load = uvloop.run(predictions(port, CLIENTS, SECONDS, "" if name == "none" else key))
                if number:  # The first round warms up.
                    rates[name].append(load.rate)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    return [
        at_least(
            f"predict after ten unseen words, {CLIENTS} clients: requests a second with {what} / without",
            f"{middle[name]:,.0f}/s, {middle['none']:,.0f}/s",
            middle[name] / middle["none"],
            0.9,
        )
        for name, what in (("keys", "keys"), ("quotas", "keys and quotas"))
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of every load")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        show(TITLE, rows(Path(name), rounds), Console())


if __name__ == "__main__":
    main()
