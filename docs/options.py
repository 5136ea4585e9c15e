"""A hook of MkDocs: `<!-- options: train -->` becomes the table of that command's arguments and options.

Boundary: the commands of `pru` as they are, in Markdown. Run as `python -m mkdocs` from the project's root, which is
how they are found.
"""

from __future__ import annotations

import re
from typing import Any

from pru.cli import load

MARKER = re.compile(r"^<!-- options: ([a-z]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its tables."""
    return MARKER.sub(lambda found: table(found[1]), markdown)


def table(name: str) -> str:
    """A row for everything that a command takes, help left out."""
    command = load(name)
    rows = [row(parameter) for parameter in command.params if parameter.name != "help"]
    for part, inner in getattr(command, "commands", {}).items():
        own = [parameter for parameter in inner.params if parameter.name != "help"]
        words = [part, *(it.name.upper() for it in own if it.param_type_name == "argument")]
        rows.append(f"| `{' '.join(words)}`{{ .option }} | {inner.get_short_help_str(200)} |")
        rows += [row(it, f"{part} ") for it in own if it.param_type_name != "argument"]
    return "\n".join(["| option | |", "|---|---|", *rows])


def row(parameter: Any, before: str = "") -> str:
    """How one is written, `before` it what it belongs to, and what it does."""
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
    text = " ".join((parameter.help or "").split()).replace("|", r"\|").replace("<", "&lt;")
    if parameter.required:
        text += " Needed."
    elif parameter.default not in (None, "", True, False) and isinstance(parameter.default, int | float | str):
        text += f" Default: {parameter.default}."
    return f"| {', '.join(f'`{before}{name}`{{ .option }}' for name in names)} | {text} |"
