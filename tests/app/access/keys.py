"""Keys for tests, and services that need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastapi.testclient import TestClient

from app.access.key_file import new_key
from tests.app.serving import serving


class Key(NamedTuple):
    """A key, the line of the file that gives it, and how it is sent."""

    text: str
    line: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}

    @property
    def subprotocols(self) -> list[str]:
        return ["pru", f"pru.key.{self.text}"]


def make_key(name: str, expires: datetime | None = None) -> Key:
    """A new key of a name."""
    text, digest = new_key()
    until = f", expires = {expires.isoformat()}" if expires else ""
    return Key(text, f'{digest} = {{ name = "{name}"{until} }}')


def key_file(*keys: Key, **limits: dict[str, Any]) -> str:
    """The text of a file of keys, and of limits by name."""
    tables = []
    for name, values in limits.items():
        tables += [f"[limits.{name}]", *(f"{field} = {value}" for field, value in values.items()), ""]
    return "\n".join([*tables, "[keys]", *(key.line for key in keys), ""])


def write_keys(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file of keys beside its place and put it there."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.chmod(mode)
    os.replace(beside, path)
    return path


@contextmanager
def guarded(*keys: Key, limits: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Iterator[TestClient]:
    """A ready service that needs one of some keys."""
    with serving(keys=key_file(*keys, **(limits or {})), **settings) as client:
        yield client
