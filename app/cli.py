"""The command line of serving: `python -m app [serve | predict TEXT | score FILE | engines]`, and the same of `pru`.

Boundary: arguments in, tables or JSON out. Every error of the project is one line on standard error and exit status 2.
What a command does not need is not imported: `predict` and `score` run without FastAPI.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Annotated

import typer
from pydantic import ValidationError

from app.access import command as keys
from app.asking import Bundle, Engine, Json, ask, count_alone, setting
from app.score_command import EXAMPLES, score_command
from app.settings import METRICS_FOLDER, Settings, load_settings
from model.command_line import errors_in_one_line, examples
from model.errors import RequestError

cli = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict the next word and score text. Settings are environment variables: PRU_BUNDLE, PRU_PORT, ...",
)

cli.add_typer(keys.cli, name="keys")


def main() -> None:
    """Run the command line."""
    with errors_in_one_line():
        cli()


@cli.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Serve where no command is given."""
    if context.invoked_subcommand is None:
        serve()


@cli.command(
    epilog=examples(
        "pru serve",
        "pru serve --bundle runs/bundle --port 9000",
        "pru serve --workers 2",
        "pru serve --models models.toml --keys-file keys.toml",
    )
)
def serve(
    *,
    bundle: Bundle = None,
    models: Annotated[str | None, setting("models")] = None,
    engine: Engine = None,
    precision: Annotated[str | None, setting("precision")] = None,
    threads: Annotated[str | None, setting("threads")] = None,
    host: Annotated[str | None, setting("host")] = None,
    port: Annotated[str | None, setting("port")] = None,
    workers: Annotated[str | None, setting("workers")] = None,
    keys_file: Annotated[str | None, setting("keys_file")] = None,
    log_level: Annotated[str | None, setting("log_level")] = None,
) -> None:
    """Serve a bundle over HTTP.

    Every setting is an environment variable, PRU_...; an option goes before
    its variable.
    """
    count_alone()
    settings = load_settings(
        bundle=bundle,
        models=models,
        engine=engine,
        precision=precision,
        threads=threads,
        host=host,
        port=port,
        workers=workers,
        keys_file=keys_file,
        log_level=log_level,
    )
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


@cli.command(
    epilog=examples(
        'pru predict "The film was released in the United"',
        'pru predict "The film was" --prefix dir -k 5',
        'pru predict --json "It was raining when"',
    )
)
def predict(
    text: Annotated[str, typer.Argument(help="What came before: whole words.")],
    *,
    k: Annotated[int, typer.Option("-k", help="Most predictions, 1 to 100.")] = 10,
    prefix: Annotated[str, typer.Option(help="The word being typed so far.")] = "",
    words_only: Annotated[bool, typer.Option("--words-only", help="Leave out punctuation.")] = False,
    include_special: Annotated[bool, typer.Option("--include-special", help="Also show <unk> and <eos>.")] = False,
    json: Json = False,
    bundle: Bundle = None,
) -> None:
    """Show the most likely next words."""
    from app import terminal  # noqa: PLC0415 - serving needs no tables
    from app.schemas import PredictRequest  # noqa: PLC0415

    try:
        request = PredictRequest(text=text, k=k, prefix=prefix, words_only=words_only, include_special=include_special)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{first['loc'][0]}: {first['msg']}") from None
    answer = ask(lambda service: service.predict(request), bundle=bundle)
    terminal.show_predictions(answer, as_json=json)


cli.command(name="score", epilog=EXAMPLES)(score_command)


@cli.command(epilog=examples("pru engines", "pru engines --bundle runs/bundle --json"))
def engines(*, json: Json = False, bundle: Bundle = None) -> None:
    """Show which engines can run a bundle on this machine, and what the others lack."""
    from app import terminal  # noqa: PLC0415
    from app.engines.choice import offers  # noqa: PLC0415
    from app.served_model import default_source  # noqa: PLC0415
    from model.bundle import open_bundle  # noqa: PLC0415

    settings = load_settings(bundle=bundle)
    source = default_source(settings)
    opened = open_bundle(source.bundle)
    terminal.show_engines(opened.manifest.name, offers(opened, source.engine, source.precision), as_json=json)
