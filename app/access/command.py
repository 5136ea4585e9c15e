"""`pru keys [new NAME | list]`: keys for the file that `PRU_KEYS_FILE` names.

Boundary: the terminal. Nothing is written to the file: whoever runs the service decides who may edit it.
"""

from __future__ import annotations

import json as json_
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.asking import Json, setting
from app.settings import load_settings
from model.command_line import examples
from model.errors import ConfigurationError

if TYPE_CHECKING:
    from app.access.key_file import Grant

cli = typer.Typer(
    no_args_is_help=True,
    help="Make keys for callers, and list those that there are.",
    epilog=examples("pru keys new alice", "pru keys list --keys-file keys.toml --json"),
)


@cli.command(epilog=examples("pru keys new alice", "pru keys new alice --json"))
def new(
    name: Annotated[str, typer.Argument(help="Who is to have it; a name again for another key of the same holder.")],
    *,
    json: Json = False,
) -> None:
    """Make a key, and show it and the line for the file. It is shown this once and kept nowhere."""
    from app.access import key_file  # noqa: PLC0415 - `--help` needs no library that checks files

    if not re.fullmatch(key_file.NAME, name) or name.startswith(key_file.MARK):
        raise ConfigurationError(
            "a name is 1 to 64 letters, digits, points, hyphens and underscores; the first is a letter or digit, and "
            f"it does not begin with {key_file.MARK}"
        )
    key, digest = key_file.new_key()
    line = f'{digest} = {{ name = "{name}" }}'
    if json:
        print(json_.dumps({"key": key, "name": name, "sha256": digest, "line": line}, indent=2))
        return
    print("The key, for its holder alone, who sends it as Authorization: Bearer KEY:\n")
    print(key)
    print("\nThe line for the key file, below its line [keys]:\n")
    print(line)


@cli.command("list", epilog=examples("pru keys list", "pru keys list --keys-file keys.toml --json"))
def list_(
    *,
    json: Json = False,
    keys_file: Annotated[str | None, setting("keys_file")] = None,
) -> None:
    """List the names, hashes and limits of all keys."""
    from app.access.keyring import Keyring  # noqa: PLC0415 - `--help` needs no library that checks files

    keyring = Keyring(load_settings(keys_file=keys_file))
    if not keyring.is_needed:
        raise ConfigurationError("there are no keys; name a file of them with PRU_KEYS_FILE or --keys-file")
    for warning in keyring.load():
        typer.echo(f"warning: {warning}", err=True)
    grants = sorted(keyring.grants.items(), key=lambda it: (it[1].name, it[0]))
    if json:
        print(json_.dumps({"keys": [_fields(digest, grant) for digest, grant in grants]}, indent=2))
    else:
        _show(grants)


def _fields(digest: bytes, grant: Grant) -> dict[str, Any]:
    """A key as programs read it; null where there is no end and no limit."""
    most = grant.limits
    return {
        "name": grant.name,
        "sha256": digest.hex(),
        "expires": None if grant.expires is None else datetime.fromtimestamp(grant.expires, UTC).isoformat(),
        "requests_per_minute": most.requests_per_minute,
        "tokens_per_minute": most.tokens_per_minute,
        "routes": None if most.routes is None else sorted(most.routes),
    }


def _show(grants: Sequence[tuple[bytes, Grant]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - JSON needs no tables

    from app.terminal import print_table  # noqa: PLC0415

    table = Table("name", "SHA-256 begins", "expires", "requests a minute", "tokens a minute", "routes")
    for digest, grant in grants:
        most = grant.limits
        table.add_row(
            grant.name,
            digest.hex()[:12],
            _time(grant.expires),
            _number(most.requests_per_minute),
            _number(most.tokens_per_minute),
            "all" if most.routes is None else ", ".join(sorted(most.routes)),
        )
    print_table(table)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    time = datetime.fromtimestamp(seconds, UTC)
    return f"{time:%Y-%m-%d %H:%M} UTC" + (" (expired)" if time <= datetime.now(UTC) else "")


def _number(most: int | None) -> str:
    return "no limit" if most is None else f"{most:,}"
