"""A disk that fills up, Ctrl-C, and SIGTERM, at any one moment of what a program does in a folder."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

TAKES_ROOM: Sequence[tuple[Any, str]] = ((io, "open"), (os, "mkdir"), (os, "fsync"), (os, "replace"), (os, "rename"))
"""Calls that fail for want of room. What was written until then is lost in part when a file is synced."""
CHANGES: Sequence[tuple[Any, str]] = (*TAKES_ROOM, (os, "unlink"), (os, "rmdir"))
"""Calls that change a folder, before and after which a signal may come."""


class Moments:
    """Counts the moments of some calls under `folder` and strikes at one of them."""

    def __init__(self, folder: Path, moment: int) -> None:
        self._folder = str(folder)
        self._moment = moment
        self._seen = 0
        self.struck = ""
        """The call that was struck; empty while none was."""

    def here(self, place: Any, dir_fd: int | None) -> bool:
        """Whether a call is about something in the folder: by a path, or by what a file descriptor is open on."""
        descriptor = place if dir_fd is None else dir_fd
        if not isinstance(descriptor, int):
            return os.fsdecode(place).startswith(self._folder)
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{descriptor}").startswith(self._folder)
        return False

    def is_it(self, name: str) -> bool:
        """Whether this is the moment."""
        self._seen += 1
        if self._seen - 1 != self._moment:
            return False
        self.struck = name
        return True


@contextmanager
def full_disk(folder: Path, moment: int) -> Iterator[Moments]:
    """Fail with "no space left" at the one call in `folder` that comes after `moment` others, and at no other."""
    with _struck(folder, moment, TAKES_ROOM, _fill) as moments:
        yield moments


@contextmanager
def ctrl_c(folder: Path, moment: int) -> Iterator[Moments]:
    """Press Ctrl-C once, before or after one of the calls that change something in `folder`."""
    with _struck(folder, moment, CHANGES, partial(_interrupt, signal.SIGINT)) as moments:
        yield moments


@contextmanager
def sigterm(folder: Path, moment: int) -> Iterator[Moments]:
    """Send SIGTERM once, before or after one of the calls that change something in `folder`."""
    with _struck(folder, moment, CHANGES, partial(_interrupt, signal.SIGTERM)) as moments:
        yield moments


Strike = Callable[[Moments, str, Callable[[], Any], tuple[Any, ...]], Any]


def _fill(moments: Moments, name: str, call: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
    if not moments.is_it(name):
        return call()
    if name == "fsync":
        with suppress(OSError):
            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
    raise OSError(errno.ENOSPC, "No space left on device")


def _interrupt(number: signal.Signals, moments: Moments, name: str, call: Callable[[], Any], _: tuple[Any, ...]) -> Any:
    if moments.is_it(f"before {name}"):
        signal.raise_signal(number)
    result = call()
    if moments.is_it(f"after {name}"):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if isinstance(result, io.IOBase):
                result.close()
            raise
    return result


@contextmanager
def _struck(folder: Path, moment: int, calls: Sequence[tuple[Any, str]], strike: Strike) -> Iterator[Moments]:
    moments = Moments(folder, moment)

    def patched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **options: Any) -> Any:
            changes = name != "open" or "r" not in str(options.get("mode", arguments[1] if len(arguments) > 1 else "r"))
            changes &= name != "mkdir" or not Path(arguments[0]).exists()
            if not changes or not moments.here(arguments[0], options.get("dir_fd")):
                return original(*arguments, **options)
            return strike(moments, name, lambda: original(*arguments, **options), arguments)

        return replacement

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in calls:
            patch.setattr(owner, name, patched(name, getattr(owner, name)))
        yield moments


def wait_for_no_disk(patch: pytest.MonkeyPatch) -> None:
    """Make syncing nothing: these tests sync a thousand times, and what they look at is in memory already."""
    patch.setattr(os, "fsync", lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too, by its relative path; a folder without files as an empty one."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }
