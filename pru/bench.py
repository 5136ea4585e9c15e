"""`pru bench`: what a bundle comes to on this machine, engine by engine; or what a server that runs answers a second.

Boundary: arguments in, a table or JSON out. Each engine is measured in a process of its own, so that its time to load
and its memory are its own. How a server is asked is `pru.bench_server`.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.asking import Bundle, Engine, Json
from model.command_line import examples, printable
from model.errors import ConfigurationError, EngineError

if TYPE_CHECKING:
    from app.settings import Settings

SECONDS, MOST_SECONDS = 16.0, 6.0
"""What the measurements of all engines are to take together, and those of one at most; loading comes on top."""
WARMUP = 3
"""Calls before those that are measured."""
ROWS = STEPS = 32
PROMPT = 256
"""Tokens of a prompt."""

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Measured:
    """One engine on this machine."""

    engine: str
    precision: str
    load_seconds: float
    """From a bundle on disk, its sums checked, to the first word predicted."""
    step_ms: float
    """Median of one step at batch 1, with the probability of every word after it."""
    step_ms_p95: float
    prompt_tokens_per_second: float
    """One sequence of `PROMPT` tokens, read without probabilities."""
    score_tokens_per_second: float
    """32 sequences of 32 tokens, each token scored."""
    memory_bytes: int
    """The most that the process held, Python and all libraries included; a GPU's own memory is not."""


@cli.command(
    epilog=examples("pru bench", "pru bench --engine onnx --json", "pru bench --url http://127.0.0.1:8000 --clients 8")
)
def bench(
    *,
    bundle: Bundle = None,
    engine: Engine = None,
    url: Annotated[str | None, typer.Option(help="Address of a running server to measure instead.")] = None,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Clients that ask the server at once.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.5, max=20, help="How long they ask.")] = 5.0,
    json: Json = False,
) -> None:
    """Measure how fast a bundle is on this machine, or a server that runs.

    Of every engine that this machine has for the bundle: time to load, one
    step at batch 1, reading a prompt, scoring 32 x 32 tokens, and memory. Of
    a server: POST /predict, answers a second and how long each took, with
    the key in PRU_API_KEY where it needs one.
    """
    if url is None:
        _bench_engines(_settings(bundle, engine), json)
    elif bundle or engine:
        raise ConfigurationError("--url measures what the server has chosen; leave --bundle and --engine out")
    else:
        from pru.bench_server import ask, show  # noqa: PLC0415 - the other measurement needs no client

        with _waiting(f"{clients} clients ask {url} for {seconds:g} s"):
            found = ask(url, clients, seconds)
        show(found, as_json=json)


def _settings(bundle: str | None, engine: str | None) -> Settings:
    from app.settings import load_settings  # noqa: PLC0415

    return load_settings(bundle=bundle, engine=engine)


def _bench_engines(settings: Settings, as_json: bool) -> None:
    from app.engines.choice import AUTO, choose, offers  # noqa: PLC0415 - `--help` needs no engine
    from app.served_model import default_source  # noqa: PLC0415
    from model.bundle import open_bundle  # noqa: PLC0415

    source = default_source(settings)
    bundle = open_bundle(source.bundle)
    wanted = {"engine": source.engine, "precision": source.precision}
    ready = {
        (offer.engine, offer.precision): None
        for offer in offers(bundle)
        if offer.missing is None and all(value in (AUTO, getattr(offer, name)) for name, value in wanted.items())
    }
    if not ready:
        choose(bundle, source.engine, source.precision)  # It says what each lacks.
    seconds = min(MOST_SECONDS, SECONDS / max(1, len(ready)))
    found = []
    for engine, precision in ready:
        with (
            _waiting(f"measuring {engine} in {precision}"),
            # A fresh process: one that was forked would hold what this one has loaded. Ctrl-C is this one's business.
            ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
            ) as process,
        ):
            arguments = (source.bundle, engine, precision, source.threads, seconds)
            try:
                found.append(process.submit(measure, *arguments).result())
            except BrokenProcessPool:
                raise EngineError(f"{engine} in {precision} ended its process; it may lack memory") from None
    _show(bundle.manifest.name, source.threads, found, as_json)


def measure(folder: Path, engine: str, precision: str, threads: int, seconds: float) -> Measured:
    """Load an engine and run it for about so many seconds."""
    start = perf_counter()
    import resource  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    from app.engines import load_engine  # noqa: PLC0415
    from model.bundle import open_bundle  # noqa: PLC0415

    loaded = load_engine(open_bundle(folder), precision, threads, engine)
    ids = np.random.default_rng(1).integers(0, loaded.vocabulary_size, (ROWS, max(STEPS, PROMPT)), dtype=np.int32)

    def read(rows: int, steps: int) -> Any:
        state = np.zeros((rows, loaded.state_size), np.float32)
        hidden, _ = loaded.advance(ids[:rows, :steps], np.full(rows, steps, np.int32), state)
        return hidden.reshape(rows * steps, loaded.hidden_size)

    def step() -> None:
        loaded.log_probabilities(read(1, 1))

    def score() -> None:
        loaded.score(read(ROWS, STEPS), ids[:, :STEPS].ravel())

    step()
    load_seconds = perf_counter() - start
    steps = _times(step, seconds / 3)
    prompts = _times(lambda: read(1, PROMPT), seconds / 3)
    scores = _times(score, seconds / 3)
    return Measured(
        engine=loaded.name,
        precision=loaded.precision,
        load_seconds=load_seconds,
        step_ms=1e3 * float(np.median(steps)),
        step_ms_p95=1e3 * float(np.percentile(steps, 95)),
        prompt_tokens_per_second=PROMPT / float(np.median(prompts)),
        score_tokens_per_second=ROWS * STEPS / float(np.median(scores)),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _times(work: Callable[[], Any], seconds: float) -> list[float]:
    """How long each call took, in seconds, for about so long in all."""
    deadline = perf_counter() + seconds
    for _ in range(WARMUP):
        work()
    times: list[float] = []
    while not times or perf_counter() < deadline:
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return times


def _show(name: str, threads: int, found: list[Measured], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"name": name, "threads": threads, "engines": [asdict(one) for one in found]}, indent=2))
        return
    from rich.table import Table  # noqa: PLC0415 - JSON needs no tables

    from app.terminal import print_table, shown  # noqa: PLC0415

    table = Table("engine", "precision", caption=f"{shown(name)}; {threads} threads")
    for heading in ("load\ns", "step\nms", "step p95\nms", "prompt\ntokens/s", "32 x 32\ntokens/s", "memory\nMB"):
        table.add_column(heading, justify="right")
    for one in found:
        table.add_row(
            one.engine,
            one.precision,
            f"{one.load_seconds:.2f}",
            f"{one.step_ms:.2f}",
            f"{one.step_ms_p95:.2f}",
            f"{one.prompt_tokens_per_second:,.0f}",
            f"{one.score_tokens_per_second:,.0f}",
            f"{one.memory_bytes / 1e6:,.0f}",
        )
    print_table(table)


def _waiting(what: str) -> Any:
    """Say on standard error what is being waited for, where that is a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # As text, in which brackets are no markup.
    return Console(stderr=True).status(Text(printable(what)))
