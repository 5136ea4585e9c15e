"""Where a bundle goes: a folder that is there whole or not at all, and that replaces nothing but another bundle.

Boundary: folders and their names. What is in them is the business of `export.exporter`.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def _is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle of any version, damaged or not."""
    try:
        content = read_json(folder / MANIFEST, BundleError)
    except PRUError:
        return False
    return not folder.is_symlink() and isinstance(content, dict) and {"format_version", "engines"} <= content.keys()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends, and vanishes when it fails."""
    mark = secrets.token_hex(4)
    beside, replaced = (out.with_name(f".{out.name}.{mark}.{kind}") for kind in ("partial", "replaced"))
    try:
        beside.mkdir(parents=True)
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
    """Let Ctrl-C come to nothing for the moment that the block takes: half of it must not be left."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C comes to the main thread alone.
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
