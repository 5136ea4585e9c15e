"""The command line: `python -m app [serve | predict TEXT | score FILE | engines]`.

Boundary: arguments in, tables or JSON out. Every error of the project is one line on standard error and exit status 2.
What a command does not need is not imported: `predict` and `score` run without FastAPI.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import ValidationError

from app.settings import METRICS_FOLDER, Settings, load_settings
from model.command_line import errors_in_one_line
from model.errors import RequestError, TextError
from model.files import decode_text, read_text

if TYPE_CHECKING:
    from app.model_service import ModelService

T = TypeVar("T")

UNLIMITED = sys.maxsize
"""A terminal's user waits as long as it takes; the limits on requests protect a server."""

cli = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict the next word and score text. Settings are environment variables: PRU_BUNDLE, PRU_PORT, ...",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Run the command line."""
    with errors_in_one_line():
        cli()


@cli.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Serve where no command is given."""
    # One process adds its numbers up by itself; a folder that another program was given is not this one's.
    os.environ.pop(METRICS_FOLDER, None)
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve the bundle over HTTP."""
    settings = load_settings()
    if settings.workers == 1:
        _serve(settings)
        return
    # Where workers add up their numbers is to be known before the library for them is loaded.
    folder, owner = tempfile.mkdtemp(prefix="pru-metrics-"), os.getpid()
    os.environ[METRICS_FOLDER] = folder
    try:
        _serve(settings)
    finally:
        if os.getpid() == owner:  # A worker comes by here as well.
            shutil.rmtree(folder, ignore_errors=True)


def _serve(settings: Settings) -> None:
    from app.served_model import open_model  # noqa: PLC0415 - `--help` needs no model
    from app.server import run  # noqa: PLC0415 - the other commands need no server

    run(settings, open_model(settings))


@cli.command()
def predict(
    text: Annotated[str, typer.Argument(help="What came before: whole words.")],
    *,
    k: Annotated[int, typer.Option("-k", help="Most predictions, 1 to 100.")] = 10,
    prefix: Annotated[str, typer.Option(help="The word being typed so far.")] = "",
    words_only: Annotated[bool, typer.Option("--words-only", help="Leave out punctuation.")] = False,
    include_special: Annotated[bool, typer.Option("--include-special", help="Also show <unk> and <eos>.")] = False,
    json: Json = False,
) -> None:
    """Show the most likely next words."""
    from app import terminal  # noqa: PLC0415 - serving needs no tables
    from app.schemas import PredictRequest  # noqa: PLC0415

    try:
        request = PredictRequest(text=text, k=k, prefix=prefix, words_only=words_only, include_special=include_special)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{first['loc'][0]}: {first['msg']}") from None
    answer = ask(lambda service: service.predict(request))
    terminal.show_predictions(answer, as_json=json)


@cli.command()
def score(
    file: Annotated[Path, typer.Argument(help="UTF-8 text; - reads standard input.")],
    include_eos: Annotated[bool, typer.Option("--eos/--no-eos", help="Score the <eos> that ends the text.")] = True,
    json: Json = False,
) -> None:
    """Score a text: its perplexity, and that of each line after all lines before it."""
    from app import terminal  # noqa: PLC0415

    text = _text_of(file)

    async def work(service: ModelService) -> None:
        scored = await service.score([text], [("text",)], include_eos=include_eos)
        terminal.show_score(scored[0], service, as_json=json)

    ask(work)


@cli.command()
def engines(json: Json = False) -> None:
    """Show which engines can run the bundle on this machine, and what the others lack."""
    from app import terminal  # noqa: PLC0415
    from app.engines.choice import offers  # noqa: PLC0415
    from model.bundle import open_bundle  # noqa: PLC0415

    settings = load_settings()
    bundle = open_bundle(settings.bundle)
    terminal.show_engines(bundle.manifest.name, offers(bundle, settings.engine, settings.precision), as_json=json)


def _text_of(file: Path) -> str:
    if str(file) != "-":
        return read_text(file, TextError)
    if sys.stdin is None:
        raise TextError("standard input is closed; name a file, or pipe the text in")
    return decode_text(sys.stdin.buffer.read(), "standard input", TextError)


def ask(work: Callable[[ModelService], Awaitable[T]]) -> T:
    """Open the settings' bundle, let `work` use the service, and close it."""
    from app.admission import Admission  # noqa: PLC0415 - `--help` needs no engine
    from app.metrics import Metrics  # noqa: PLC0415
    from app.model_service import ModelService  # noqa: PLC0415
    from app.prefix_cache import PrefixCache  # noqa: PLC0415
    from app.reader import RequestLimits  # noqa: PLC0415
    from app.scheduler import Scheduler  # noqa: PLC0415
    from app.served_model import open_model  # noqa: PLC0415

    settings = load_settings()
    served = open_model(settings)

    async def session() -> T:
        metrics = Metrics()
        scheduler = Scheduler(served.build_engine, metrics.of_model(served.name))
        limits = RequestLimits(texts=UNLIMITED, tokens=UNLIMITED)
        try:
            return await work(
                await ModelService.start(
                    served, scheduler, PrefixCache(0), Admission(0, UNLIMITED, None, metrics), limits
                )
            )
        finally:
            scheduler.close()

    return asyncio.run(session())
