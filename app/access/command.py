"""`pru keys [new NAME | list]`: keys for the file that `PRU_KEYS_FILE` names.

Boundary: the terminal. Nothing is written to the file: whoever runs the service decides who may edit it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from app.settings import load_settings
from model.errors import ConfigurationError

cli = typer.Typer(no_args_is_help=True, help="Make keys for callers, and list those that there are.")


@cli.command()
def new(
    name: Annotated[str, typer.Argument(help="Who is to have it; a name again for another key of the same holder.")],
) -> None:
    """Make a key, and show it and the line for the file. It is shown this once and kept nowhere."""
    from app.access import key_file  # noqa: PLC0415 - `--help` needs no library that checks files

    if not re.fullmatch(key_file.NAME, name) or name.startswith(key_file.MARK):
        raise ConfigurationError(
            "a name is 1 to 64 letters, digits, points, hyphens and underscores; the first is a letter or digit, and "
            f"it does not begin with {key_file.MARK}"
        )
    key, digest = key_file.new_key()
    print("The key, for its holder alone, who sends it as Authorization: Bearer KEY:\n")
    print(key)
    print("\nThe line for the key file, below its line [keys]:\n")
    print(f'{digest} = {{ name = "{name}" }}')


@cli.command("list")
def list_() -> None:
    """List the names, hashes and limits of all keys."""
    from rich.console import Console  # noqa: PLC0415 - `--help` needs no tables
    from rich.table import Table  # noqa: PLC0415

    from app.access.keyring import Keyring  # noqa: PLC0415

    keyring = Keyring(load_settings())
    if not keyring.is_needed:
        raise ConfigurationError("there are no keys; name a file of them with PRU_KEYS_FILE")
    for warning in keyring.load():
        typer.echo(f"warning: {warning}", err=True)
    table = Table("name", "SHA-256 begins", "expires", "requests a minute", "tokens a minute", "routes")
    for digest, grant in sorted(keyring.grants.items(), key=lambda it: (it[1].name, it[0])):
        most = grant.limits
        table.add_row(
            grant.name,
            digest.hex()[:12],
            _time(grant.expires),
            _number(most.requests_per_minute),
            _number(most.tokens_per_minute),
            "all" if most.routes is None else ", ".join(sorted(most.routes)),
        )
    Console().print(table)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    time = datetime.fromtimestamp(seconds, UTC)
    return f"{time:%Y-%m-%d %H:%M} UTC" + (" (expired)" if time <= datetime.now(UTC) else "")


def _number(most: int | None) -> str:
    return "no limit" if most is None else f"{most:,}"
