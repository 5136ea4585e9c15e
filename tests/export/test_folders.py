"""Folders of bundles beside which another process was killed, or still works."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export import folders
from export.folders import check_out, mend, new_folder
from model.bundle import MANIFEST
from model.errors import ExportError
from tests.source import ROOT

MAKES = """
import sys, time
from pathlib import Path
from export.folders import new_folder

rename = Path.rename
def renamed(path, target):
    rename(path, target)
    if str(target).endswith(".replaced") and sys.argv[2] == "between":
        print("there", flush=True)
        time.sleep(60)
Path.rename = renamed
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
    if sys.argv[2] == "before":
        print("there", flush=True)
        time.sleep(60)
"""
"""A process that makes a bundle and stands still: before it takes its place, or between the two renames."""


def bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"format_version": 1, "engines": {}}))
    return folder


def making(out: Path, moment: str) -> subprocess.Popen[str]:
    """The process, once it stands still there."""
    process = subprocess.Popen([sys.executable, "-c", MAKES, out, moment], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate()
    return process.returncode


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("moment", ["before", "between"])
def test_what_a_killed_export_left_is_mended_and_the_old_bundle_is_there_again(tmp_path: Path, moment: str) -> None:
    out = bundle(tmp_path / "[bundle]")
    end(making(out, moment), signal.SIGKILL)
    assert len(names(tmp_path)) == 2
    mend(out)
    assert names(tmp_path) == {out.name}
    assert names(out) == {MANIFEST}
    with pytest.raises(ExportError, match="already a bundle"):
        check_out(out, replace=False)


def test_what_an_export_that_still_runs_makes_is_left_alone(tmp_path: Path) -> None:
    out = bundle(tmp_path / "bundle")
    process = making(out, "between")
    try:
        there = names(tmp_path)
        mend(out)
        assert names(tmp_path) == there
        assert {name.rpartition(".")[2] for name in there} == {"partial", "replaced"}
    finally:
        end(process, signal.SIGKILL)


def test_what_was_replaced_but_not_yet_removed_is_removed_and_what_is_somebody_elses_is_not(tmp_path: Path) -> None:
    out = bundle(tmp_path / "bundle")
    bundle(tmp_path / ".bundle.0123abcd.replaced")
    bundle(tmp_path / ".bundle.mine.replaced")
    bundle(tmp_path / ".other.0123abcd.partial")
    mend(out)
    assert names(tmp_path) == {"bundle", ".bundle.mine.replaced", ".other.0123abcd.partial"}


def test_sigterm_leaves_the_old_bundle_and_no_litter(tmp_path: Path) -> None:
    out = bundle(tmp_path / "bundle")
    assert end(making(out, "before"), signal.SIGTERM) != 0
    assert names(tmp_path) == {"bundle"}
    assert names(out) == {MANIFEST}


def test_signals_are_handled_afterwards_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with new_folder(tmp_path / "bundle"):
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    with folders.uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
