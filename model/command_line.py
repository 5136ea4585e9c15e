"""What all commands have in common: one fails in one line on standard error with exit status 2, and ends its help with
examples.

Boundary: errors in, an exit out; text for terminals. What a command does is its package's own `cli`. Imports next to
nothing, so that a command is inside it before it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from model.errors import PRUError

FAILED = 2
INTERRUPTED = 130
"""The exit status that Typer makes of Ctrl-C in a command."""


@contextmanager
def errors_in_one_line(*, speaks: bool = True) -> Iterator[None]:
    """Turn an error of the project or of the operating system, or Ctrl-C, into one line and `SystemExit(2)`.

    A process that does not speak leaves the line to another, which has the same error; errors of the operating system
    are its own.
    """
    own = False
    try:
        yield
    except PRUError as error:
        message = str(error)
    except OSError as error:
        own = True
        reason = error.strerror or str(error)
        message = f"{error.filename}: {reason}" if error.filename else reason
    except KeyboardInterrupt:
        message = "interrupted"
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        message = "interrupted"
    else:
        return
    if speaks or own:
        print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(FAILED)


def printable(text: str) -> str:
    """Text in one line that no terminal obeys: blanks for what separates, a mark in place of controls and the like."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def examples(*commands: str) -> str:
    """What ends a command's help: commands as they are typed."""
    return "\n".join(["Examples:", *(escaped(command) for command in commands)])


def escaped(text: str) -> str:
    """Text in which a help shows brackets as they are."""
    return text.replace("[", r"\[")
