"""`python -m training report` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import exit_status
from tests.model.faults import contents
from tests.source import ROOT
from tests.training.records import ablation, record, saved
from training.cli import main


def report(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training report` with these arguments."""
    return exit_status(monkeypatch, main, "report", *arguments)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command ends in."""
    assert report(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def test_the_committed_results_are_those_of_the_committed_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [*ROOT.glob("checkpoints/*/training.json"), *ROOT.glob("benchmarks/results/training/*/training.json")]
    runs = sorted(path.parent for path in records)
    assert ROOT / "checkpoints" / "wikitext-2" in runs
    assert report(monkeypatch, *runs, "--out", tmp_path) == 0
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()
    for name in ("learning_curves.png", "levels_and_groups.png"):
        assert (tmp_path / name).exists() == (ROOT / name).exists()


def test_text_and_pictures_are_written_and_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [saved(tmp_path / str(k), record(f"figure5-g4-k{k}", model=ablation(4, k))) for k in (1, 2)]
    out = tmp_path / "new" / "folder"
    assert report(monkeypatch, *runs, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["RESULTS.md", "learning_curves.png", "levels_and_groups.png"]
    text = (out / "RESULTS.md").read_text()
    for name in ("learning_curves.png", "levels_and_groups.png"):
        assert f"]({name})" in text
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "of 2 runs in" in capsys.readouterr().err


def test_pictures_that_are_not_drawn_are_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = saved(tmp_path / "run", record(curve=[], finished=False))
    assert report(monkeypatch, started, "--out", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["RESULTS.md"]
    assert ".png" not in (tmp_path / "out" / "RESULTS.md").read_text()


def test_a_folder_given_twice_is_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run", record())
    assert report(monkeypatch, run, run.parent / "." / "run", "--out", tmp_path) == 0
    assert "of 1 run in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preset": None}, "preset: Input should be a valid string"),
        ({"curve": [{"epoch": 1}]}, "curve.0.train_perplexity: Field required"),
        ({"parameters": 0}, "parameters: Input should be greater than or equal to 1"),
        ({"seconds": float("nan")}, "seconds: Input should be a finite number"),
        ({"perplexity": {"valid": float("inf")}}, "perplexity.valid: Input should be a finite number"),
        ({"perplexity": {"test": 62.0}}, "the run is finished, but perplexity.valid is missing"),
        ({"model": {"vocabulary_size": 10}}, "model.embedding_size: Field required"),
        ({"recipe": {}}, "recipe.epochs: Field required"),
        (
            {"evaluations": [{"data": "x", "tokens": 1, "evaluation": "dynamic", "parameters": {}, "perplexity": 9.0}]},
            "dynamic_perplexity is missing",
        ),
        ({"evaluations": ["dynamic"]}, "evaluations.0"),
    ],
)
def test_a_damaged_record_is_named_with_its_fault_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    said: str,
) -> None:
    good, bad = saved(tmp_path / "good", record()), saved(tmp_path / "bad", record() | changes)
    error = refused(monkeypatch, capsys, good, bad, "--out", tmp_path / "out")
    assert error.startswith(f"error: {bad / 'training.json'} is no record of a run (")
    assert said in error
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_record_or_with_another_kind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "training.json"
    assert f"{file} is missing" in refused(monkeypatch, capsys, tmp_path / "none", "--out", tmp_path)
    kinds = {
        "[]": "does not hold an object",
        "{": "is not valid JSON",
        '{"format_version": 1}': "is no record of a run",
    }
    file.parent.mkdir()
    for content, said in kinds.items():
        file.write_text(content)
        assert f"{file} {said}" in refused(monkeypatch, capsys, file.parent, "--out", tmp_path)
    (tmp_path / "file").touch()
    said = refused(monkeypatch, capsys, tmp_path / "file", "--out", tmp_path)
    assert f"{tmp_path / 'file' / 'training.json'} cannot be read" in said


def test_an_out_that_cannot_be_written_is_named_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run", record())
    taken = tmp_path / "taken"
    taken.write_text("kept")
    assert f"{taken} cannot be written" in refused(monkeypatch, capsys, run, "--out", taken)
    assert taken.read_text() == "kept"
    (tmp_path / "out" / "RESULTS.md").mkdir(parents=True)
    before = contents(tmp_path / "out")
    assert "cannot be written" in refused(monkeypatch, capsys, run, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.partial"))
    assert before.items() <= contents(tmp_path / "out").items()


def test_records_may_hold_more_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path / "run", record() | {"averaged": True, "hardware": {"accelerator": "GPU"}})
    assert report(monkeypatch, run, "--out", tmp_path) == 0
    assert "| GPU |" in (tmp_path / "RESULTS.md").read_text()


def test_no_other_command_loads_matplotlib() -> None:
    program = (
        "import sys, json, training.cli; print(json.dumps([n for n in sys.modules if n.startswith('matplotlib')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
