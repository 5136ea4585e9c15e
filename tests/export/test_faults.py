"""Exports, when the disk fills up or a signal comes at any moment: the old bundle or the new one, and nothing else."""

from __future__ import annotations

import itertools
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from export import exporter, forms, graphs
from export.cli import main
from export.forms import OnnxForm
from export.texts import Text
from export.validate import Differences
from model.bundle import open_bundle
from tests.export.samples import config_of, random_weights, write_checkpoint
from tests.model.faults import Moments, contents, ctrl_c, full_disk, sigterm, wait_for_no_disk

Fault = Callable[[Path, int], AbstractContextManager[Moments]]


@pytest.fixture(autouse=True)
def _nothing_but_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what an export does between its writes: it is tested elsewhere, and these tests export often."""
    wait_for_no_disk(monkeypatch)
    monkeypatch.setattr(exporter, "text_for", lambda *_: Text(None, np.zeros(1, np.int32)))
    monkeypatch.setattr(OnnxForm, "load", lambda *_: [None])
    monkeypatch.setattr(exporter, "check_values", lambda *_: Differences(0.0, 0.0, 0.0))
    monkeypatch.setattr(exporter, "ExportedReader", lambda *_: None)
    monkeypatch.setattr(exporter, "perplexity", lambda *_: 2.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = config_of()
    return write_checkpoint(tmp_path / "checkpoint", config, random_weights(config))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m export` with these arguments, in one precision."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), "--precision", "int8", "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command writes."""
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


def problems_after(
    there: Path, before: dict[str, bytes], struck: str, status: int, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What is wrong in the folder of a bundle, or with what was said of it, after an export that was struck."""
    after = contents(there)
    found = []
    if leftovers := {path.name for path in there.iterdir()} - {"bundle"}:
        found.append(f"{struck}: left behind {leftovers}")
    elif after != before and open_bundle(there / "bundle").manifest.name != "new":
        found.append(f"{struck}: neither the old bundle nor the new one")
    if status == 0:
        # It came too late to matter.
        capsys.readouterr()
        found += [] if after != before else [f"{struck}: claims to have exported"]
    else:
        assert status == 2
        line = one_error(capsys)
        found += [f"{struck}: wrote, and said {line!r}"] if after != before and "nothing was" in line else []
    return found


@pytest.mark.parametrize("name", [None, "old"], ids=["first", "again"])
@pytest.mark.parametrize("fault", [full_disk, ctrl_c, sigterm], ids=["full-disk", "ctrl-c", "sigterm"])
def test_whenever_an_export_is_stopped_there_is_the_old_bundle_or_the_new_one_and_it_says_which(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    name: str | None,
) -> None:
    monkeypatch.setattr(graphs, "STEP_LENGTHS", (1,))
    old = tmp_path / "old"
    old.mkdir()
    if name:
        assert run(monkeypatch, "--checkpoint", checkpoint, "--out", old / "bundle", "--name", name) == 0
    before = contents(old)
    problems: list[str] = []
    for moment in itertools.count():
        there = shutil.copytree(old, tmp_path / str(moment))
        capsys.readouterr()
        with fault(there, moment) as moments:
            options = ("--out", there / "bundle", "--name", "new", "--force")
            status = run(monkeypatch, "--checkpoint", checkpoint, *options)
        if not moments.struck:
            break
        problems += problems_after(there, before, moments.struck, status, capsys)
    assert moment > 20
    assert status == 0
    assert problems == []


@pytest.mark.parametrize(
    ("module", "place"),
    [(exporter, "load_checkpoint"), (forms, "fold_model"), (exporter, "perplexity"), (exporter, "write_manifest")],
)
def test_ctrl_c_at_any_stage_is_one_line(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    place: str,
) -> None:
    def press(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, place, press)
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", tmp_path / "bundle") == 2
    assert "interrupted; nothing was written" in one_error(capsys)
    assert set(tmp_path.iterdir()) == {checkpoint}


def test_an_export_first_restores_the_bundle_that_a_killed_one_had_moved_away(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(graphs, "STEP_LENGTHS", (1,))
    out = tmp_path / "there" / "bundle"
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", out, "--name", "old") == 0
    capsys.readouterr()
    out.rename(out.with_name(".bundle.0123abcd.replaced"))
    out.with_name(".bundle.0123abcd.partial").mkdir()
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", out) == 2
    assert "already a bundle" in one_error(capsys)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    assert open_bundle(out).manifest.name == "old"
