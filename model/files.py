"""Files written whole or not at all, read back with one-line errors, and summed.

Boundary: bytes, text and JSON on a local file system. Knows nothing of what the files mean and imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from model.errors import PRUError

_CHUNK = 1 << 20


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write, put at `path` when the block ends, so that a reader, or a machine that stops at any moment,
    finds the old file or the new one.

    It is written beside the target, synced and renamed over it, and the folder synced. The folder must exist.
    Raises `OSError` (no space, no permission), or what the block raises, with nothing left behind.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` as `written_atomically` does."""
    with written_atomically(path) as file:
        file.write(data)


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically. Infinities and NaN are refused (`ValueError`): JSON has none."""
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path, error: type[PRUError]) -> Any:
    """Read a JSON file; raise `error` with one line naming the file when it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path} is missing; restore it, or make its folder again") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON ({problem}); restore it, or make its folder again") from None


def read_text(path: Path, error: type[PRUError]) -> str:
    """Read a UTF-8 file; raise `error` with one line naming the file when it cannot be read or is no such text."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    return decode_text(data, path, error)


def decode_text(data: bytes, source: Path | str, error: type[PRUError]) -> str:
    """Text of UTF-8 bytes, a byte order mark left out; raise `error` naming `source` where they are something else."""
    if b"\0" in data:
        raise error(f"{source} is not text (it holds NUL bytes); give plain text saved as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{source} is not UTF-8 (line {line}, byte {problem.start}); save it as UTF-8, for example with iconv"
        ) from None


def readable(path: Path) -> str:
    """A path as text that can be written: bytes of it that are no UTF-8 stand as `\\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
