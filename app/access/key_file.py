"""Keys as an operator writes them down: TOML that names the hash of each key, and what its holder may do.

    [limits.alice]                       may be left out: no limits
    requests_per_minute = 600
    tokens_per_minute = 100_000
    routes = ["predict", "sessions"]

    [keys]
    5e88…d8 = { name = "alice" }
    9f86…08 = { name = "alice", expires = 2027-01-31T00:00:00Z }

Boundary: text in, `Keys` out; when it is read, `app.access.keyring` decides. Errors say where something is wrong by
numbers and by names of fields that are known here: what was written may be a key that went to the wrong place.

A key has 256 bits of chance, so its plain SHA-256 can be neither guessed nor inverted, and needs no salt and no work
factor. Several hashes of one name are keys of one holder: a new one is added, and the old one removed when nobody uses
it any more. The name owns what was made with it, so it is given to nobody else.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from app.access.routes import RouteGroup
from model.errors import ConfigurationError

MARK = "pru_"
"""Begins every key, so that people and scanners of source code know one when they see it."""
KEY = re.compile(rb"pru_[A-Za-z0-9_-]{43}")
"""A key as it is sent: the mark and 256 bits in base64."""
MOST_KEYS = 10_000
MOST_BYTES = 4 * 2**20
ENVIRONMENT = "PRU_KEYS"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True)
class Limits:
    """What the holder of a key may do; None: whatever and as much as there is."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    routes: frozenset[RouteGroup] | None = None


@dataclass(frozen=True)
class Grant:
    """What one key gives: a name, until when in Unix seconds (None: for good), and its limits."""

    name: str
    expires: float | None
    limits: Limits


@dataclass(frozen=True)
class Keys:
    """Grants by the SHA-256 [32 bytes] of their keys, and what an operator should know of where they came from."""

    grants: dict[bytes, Grant] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def new_key() -> tuple[str, str]:
    """A new key, and its hash in hexadecimal."""
    key = MARK + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _no_key(name: str) -> str:
    if name.startswith(MARK):
        raise PydanticCustomError("key_for_name", "this is a key and not a name; replace the key, since it was seen")
    return name


def _with_zone(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise PydanticCustomError("no_zone", "a time needs its zone, as in 2027-01-31T00:00:00Z")
    return time


Name = Annotated[str, Field(pattern=NAME), AfterValidator(_no_key)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _KeyEntry(_Entry):
    name: Name
    expires: Annotated[datetime, AfterValidator(_with_zone)] | None = None


class _LimitsEntry(_Entry):
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    routes: Annotated[list[Annotated[RouteGroup, Field(strict=False)]], Field(min_length=1)] | None = None


class _File(_Entry):
    limits: dict[Name, _LimitsEntry] = Field(default_factory=dict)
    keys: dict[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], _KeyEntry] = Field(min_length=1, max_length=MOST_KEYS)


_FIELDS = {*_File.model_fields, *_KeyEntry.model_fields, *_LimitsEntry.model_fields}


def parse(text: str, place: str) -> Keys:
    """The keys in a text that came from `place`; `ConfigurationError` where something in it is wrong."""
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # Of TOML, or of a number with thousands of digits.
        # Its message may repeat what stands there.
        where = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
        raise _wrong(place, f"no TOML at {where[1] if where else 'some place'}; mend what stands there") from None
    except RecursionError:
        raise _wrong(place, "no TOML that a person wrote; it nests too deep") from None
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise _wrong(place, f"wrong at {_where(first['loc'], content)}: {first['msg']}") from None
    names = {entry.name for entry in file.keys.values()}
    for number, name in enumerate(file.limits, 1):
        if name not in names:
            raise _wrong(place, f"wrong at limits, entry {number}: no key has this name; mend or remove it")
    limits = {
        name: Limits(
            entry.requests_per_minute,
            entry.tokens_per_minute,
            None if entry.routes is None else frozenset(entry.routes),
        )
        for name, entry in file.limits.items()
    }
    return Keys(
        {
            bytes.fromhex(digest): Grant(
                entry.name, entry.expires.timestamp() if entry.expires else None, limits.get(entry.name, Limits())
            )
            for digest, entry in file.keys.items()
        }
    )


def read(path: Path) -> Keys:
    """The keys in a file; `ConfigurationError` where it cannot be read, others may write it, or it is wrong."""
    place = f"the key file {path}"
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _wrong(place, "no regular file; name one with PRU_KEYS_FILE")
            if found.st_mode & _OTHERS_WRITE:
                raise _wrong(place, "writable for others than its owner, who could add keys; run chmod go-w on it")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{place} cannot be read: {error.strerror}; see to its path and rights, or unset PRU_KEYS_FILE"
        ) from None
    if len(data) > MOST_BYTES:
        raise _wrong(place, f"larger than {MOST_BYTES} bytes; remove what is no key")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _wrong(place, f"no UTF-8 at byte {error.start}; mend what stands there") from None
    keys = parse(text, place)
    # A file of another user's, such as a Secret that Kubernetes mounts, is read by its group or not at all.
    others = _OTHERS_READ if found.st_uid == os.geteuid() else stat.S_IROTH
    if found.st_mode & others:
        return Keys(keys.grants, (f"{place} can be read by others than its owner; run chmod go-r on it",))
    return keys


def _open_at_once(path: str, flags: int) -> int:
    # The path may lead to a pipe, which would be waited for.
    return os.open(path, flags | os.O_NONBLOCK)


def _where(path: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """A place in the file, in words that repeat nothing of it but the names of known fields."""
    steps: list[str] = []
    for step in path:
        if isinstance(step, int) or step == "[key]":
            continue
        if step in _FIELDS and len(steps) != 1:
            steps.append(str(step))
        elif len(steps) == 1 and isinstance(within := content.get(steps[0]), dict) and step in within:
            steps.append(f"entry {list(within).index(step) + 1}")
        else:
            steps.append("a field that is not known")
    return ", ".join(steps) or "its top"


def _wrong(place: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{place} is {what}")
