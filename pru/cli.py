"""The command `pru`: all commands of the project under one name.

Boundary: where each command is, and what is said where it cannot be loaded. What it does is in its own package. Nothing
of a command is imported before that command is named: help comes at once, and `pru predict` needs no torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from model.errors import ConfigurationError

USE, MAKE = "Use a model", "Make a model"


@dataclass(frozen=True)
class Command:
    """Where a command is, and how the list of all commands shows it."""

    module: str
    application: str
    """The module's Typer application, which holds the command under its name or is made of it alone."""
    help: str
    """The first line of its own help."""
    panel: str
    extra: str
    """What `pip install '.[EXTRA]'` is to bring for it."""


def _use(module: str, text: str) -> Command:
    return Command(module, "cli", text, USE, "cpu")


def _make(module: str, text: str) -> Command:
    return Command(module, "app", text, MAKE, "cpu,train")


COMMANDS = {
    "predict": _use("app.cli", "Show the most likely next words."),
    "score": _use("app.cli", "Write the surprisal of every word of a text, or figures of every line, as TSV."),
    "serve": _use("app.cli", "Serve a bundle over HTTP."),
    "bench": _use("pru.bench", "Measure how fast a bundle is on this machine, or a server that runs."),
    "engines": _use("app.cli", "Show which engines can run a bundle on this machine, and what the others lack."),
    "keys": _use("app.cli", "Make keys for callers, and list those that there are."),
    "train": _make(
        "training.cli", "Train a model; Ctrl-C, SIGTERM and --max-minutes stop it so that --resume goes on exactly."
    ),
    "evaluate": _make("training.cli", "Measure a checkpoint's perplexity on one stream of text."),
    "analyze": _make("training.cli", "Compare models: entropies, embeddings, saliency and gradient coverage."),
    "report": _make("training.cli", "Write what runs reached beside what the paper reports, and draw their curves."),
    "presets": _make("training.cli", "List the presets with their parameter counts."),
    "pack": _make("training.cli", "Copy a checkpoint in half precision and small files, to move it."),
    "export": _make("export.cli", "Export a checkpoint to a bundle, accepted only if it computes what the model does."),
    "validate": _make("export.cli", "Validate a bundle on this machine against the checkpoint it was made of."),
}


class Commands(TyperGroup):
    """Knows every command by a line of help, and loads the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and the arguments left; the command as the list shows it where a shell completes a word."""
        name, listed, rest = super().resolve_command(ctx, args)
        try:
            return name, load(str(name)) if listed else None, rest
        except ConfigurationError:
            if ctx.resilient_parsing:
                return name, listed, rest
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is called."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _missing(str(ctx.invoked_subcommand), error) from None


def load(name: str) -> Any:
    """The command of that name; `ConfigurationError` where a package that it needs is not installed."""
    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    found = get_command(getattr(module, command.application))
    return found.commands[name] if isinstance(found, TyperGroup) else found


def _missing(name: str, error: ModuleNotFoundError) -> Exception:
    """What to say where a package is not installed; the error itself where it is a module of one."""
    if error.name is None or "." in error.name:
        return error
    extra = COMMANDS[name].extra
    return ConfigurationError(
        f"pru {name} needs {error.name}, which is not installed; pip install '.[{extra}]' brings it"
    )


def _listed() -> None:
    """What stands in the list for a command that is not loaded."""


cli = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Next-word prediction and text scoring with Pyramidal Recurrent Units. `pru COMMAND --help` shows examples.",
)
for _name, _command in COMMANDS.items():
    cli.command(_name, help=_command.help, rich_help_panel=_command.panel)(_listed)
