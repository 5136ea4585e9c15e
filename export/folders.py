"""Where a bundle goes: a folder that is there whole or not at all, and that replaces nothing but another bundle.

Boundary: folders and their names. What is in them is the business of `export.exporter`.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from model.bundle import MANIFEST
from model.errors import BundleError, ExportError, PRUError
from model.files import read_json, sync_folder


def check_out(out: Path, replace: bool) -> None:
    """Refuse an `out` that is there, unless it is a bundle and `replace` is true."""
    if not out.exists() and not out.is_symlink():
        return
    if not _is_bundle(out):
        raise ExportError(f"{out} exists and is not a bundle; remove it or give another --out")
    if not replace:
        raise ExportError(f"{out} is already a bundle; replace it with --force or give another --out")


def mend(out: Path) -> None:
    """Undo what a process killed while it made `out` left beside it: the old bundle takes its place again where it is
    missing, and what was never finished is removed. What a process that still runs makes is left alone.
    """
    for beside in _siblings(out, "partial"):
        if not _in_use(beside):
            shutil.rmtree(beside, ignore_errors=True)
    left = [path for path in _siblings(out, "replaced") if not path.with_suffix(".partial").exists()]
    try:
        if len(left) == 1 and not out.exists():
            left.pop().rename(out)
            sync_folder(out.parent)
    except OSError as error:
        raise ExportError(f"{out} cannot be restored: {error.strerror or error}; mend that and export again") from None
    if _is_bundle(out):
        for path in left:
            shutil.rmtree(path, ignore_errors=True)


def _siblings(out: Path, kind: str) -> list[Path]:
    """The folders of one kind that exports made beside `out`."""
    return list(out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}.{kind}"))


def _in_use(folder: Path) -> bool:
    """Whether the process that made a folder may still run: it holds a lock on it, which ends with the process."""
    try:
        with _opened(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Or the file system knows no locks, and nobody can tell.
    return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, to lock it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle of any version, damaged or not."""
    try:
        content = read_json(folder / MANIFEST, BundleError)
    except PRUError:
        return False
    return not folder.is_symlink() and isinstance(content, dict) and {"format_version", "engines"} <= content.keys()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends, and vanishes when it fails.

    SIGTERM is `KeyboardInterrupt` meanwhile, as Ctrl-C is.
    """
    mark = secrets.token_hex(4)
    beside, replaced = (out.with_name(f".{out.name}.{mark}.{kind}") for kind in ("partial", "replaced"))
    with _terminated_as_interrupted():
        try:
            beside.mkdir(parents=True)
            with _opened(beside) as descriptor:
                with suppress(OSError):  # Some file systems know no locks.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield beside
                for folder in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
                    sync_folder(folder)
                with uninterrupted():
                    _take_place(beside, out, replaced)
        except OSError as error:
            raise ExportError(f"{out} cannot be written: {error.strerror or error}; nothing was left behind") from None
        finally:
            with uninterrupted():
                shutil.rmtree(beside, ignore_errors=True)


def _take_place(new: Path, out: Path, replaced: Path) -> None:
    """Rename `new` to `out` and delete what was there, which until then is called `replaced`.

    An `OSError` means that `out` is as it was; once the new folder is in place, an error says that it is.
    """
    if out.exists():
        out.rename(replaced)
    try:
        new.rename(out)
    except OSError:
        if replaced.exists():
            replaced.rename(out)
        raise
    try:
        sync_folder(out.parent)
    except OSError as error:
        raise ExportError(
            f"{out} is the new bundle, but {out.parent} cannot be synced: {error.strerror or error}; "
            "mend that and export again, or the bundle may be lost when the machine stops"
        ) from None
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM come to nothing for the moment that the block takes: half of it must not be left."""
    with _handled((signal.SIGINT, signal.SIGTERM), lambda *_: None):
        yield


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, by which a scheduler or a container ends a process, unwind as Ctrl-C does."""
    with _handled((signal.SIGTERM,), _interrupt):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` have some signals until the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals come to the main thread alone.
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
