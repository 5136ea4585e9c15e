"""`python -m benchmarks.swap [--swaps N]`: the default model swapped under load: who fails, who waits, what is left.

Boundary: one server of two copies of the bundled model, whose manifests differ, and clients of it. A swap is timed from
the signal to read the file again to the first answer of the new bundle; requests under way in that time are those
"meanwhile", and all others are compared with them, from the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console

from app.models.keeper import RETIRED_SECONDS
from benchmarks.asking import CLIENTS, words
from benchmarks.harness import Row, at_most, milliseconds, show, shown
from benchmarks.load import Load, StreamClient
from benchmarks.server import Server, serving
from model.bundle import open_bundle, write_manifest

BUNDLE = Path(__file__).parents[1] / "bundles" / "wikitext-2"
TITLE = "the bundled model, swapped for another under load"
QUIET_SECONDS = 3.0
"""Between two swaps."""

Times = list[tuple[float, float]]
"""When each request was sent, and when it was answered."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=6)
    swaps = parser.parse_args().swaps
    with tempfile.TemporaryDirectory() as name:
        show(TITLE, rows(Path(name), BUNDLE, swaps), Console())


def rows(folder: Path, bundle: Path, swaps: int) -> list[Row]:
    """Every figure; the server writes into `folder`."""
    for version in ("v0", "v1"):
        shutil.copytree(bundle, folder / version)
        manifest = open_bundle(folder / version).manifest
        write_manifest(folder / version, manifest.model_copy(update={"licence": version}))
    file = folder / "models.toml"
    _name(file, "v0")
    with serving(bundle, 2, folder / "server", models=file) as server:
        before = server.resident_bytes()
        times, failed, swapped = uvloop.run(_swap_under_load(server, file, swaps))
        time.sleep(RETIRED_SECONDS + 2)
        after = server.resident_bytes()
    meanwhile: list[float] = []
    else_: list[float] = []
    for began, ended in times:
        overlaps = any(began < end and ended > start for start, end in swapped)
        (meanwhile if overlaps else else_).append(ended - began)
    during, quiet = Load(meanwhile, 1), Load(else_, 1)
    seconds = statistics.median(end - start for start, end in swapped)
    name = f"/predict of ten words by {CLIENTS} clients"
    return [
        Row(f"{name}: failed of {len(times):,}, {swaps} swaps", "", failed, "", "<= 0", failed == 0),
        at_most(
            f"{name}: p99 while the default swaps / else",
            milliseconds(swap=during.quantile(0.99), else_=quiet.quantile(0.99)),
            during.quantile(0.99) / quiet.quantile(0.99),
            2,
        ),
        shown(
            f"{name}: p50 while the default swaps / else",
            milliseconds(swap=during.quantile(0.5), else_=quiet.quantile(0.5)),
            during.quantile(0.5) / quiet.quantile(0.5),
        ),
        Row("a swap, from the signal to the first answer", "", seconds, " s", None, None),
        shown(f"memory after {swaps} swaps / before", f"{after >> 20} MiB, {before >> 20} MiB", after / before),
    ]


def _name(file: Path, bundle: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(f'default = "m"\n[models.m]\nbundle = "{bundle}"\n')
    os.replace(beside, file)


async def _swap_under_load(server: Server, file: Path, swaps: int) -> tuple[Times, int, Times]:
    """Swap again and again while clients ask; the times of requests and of swaps, and how many requests failed."""
    times: Times = []
    failed = 0
    stop = asyncio.Event()

    async def work() -> None:
        nonlocal failed
        client = await StreamClient.connect(server.port)
        while not stop.is_set():
            began = time.perf_counter()
            try:
                await client.post("/predict", {"text": words(10)})
            except (RuntimeError, OSError, asyncio.IncompleteReadError):
                failed += 1
                client = await StreamClient.connect(server.port)
            times.append((began, time.perf_counter()))
        client.close()

    tasks = [asyncio.create_task(work()) for _ in range(CLIENTS)]
    watch = await StreamClient.connect(server.port)
    swapped: Times = []
    for swap in range(swaps):
        await asyncio.sleep(QUIET_SECONDS)
        name = f"v{(swap + 1) % 2}"
        wanted = open_bundle(file.parent / name, verify=False).sha256.encode()
        began = time.perf_counter()
        _name(file, name)
        os.kill(server.process_id, signal.SIGHUP)
        while wanted not in await watch.post("/predict", {"text": "the"}):
            await asyncio.sleep(0.01)
        swapped.append((began, time.perf_counter()))
    await asyncio.sleep(QUIET_SECONDS)
    stop.set()
    await asyncio.gather(*tasks)
    return times, failed, swapped


if __name__ == "__main__":
    main()
