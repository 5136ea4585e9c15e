"""Exports for several engines, and bundles validated again: what is written, recorded and refused."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.cli import main
from export.validate import ExportedReader, perplexity
from model.bundle import Manifest, Validation, open_bundle, sums_of, write_manifest
from model.torchscript_model import TorchScriptModel
from tests.export.samples import TEXT, config_of, random_weights, write_checkpoint
from tests.model.faults import contents, full_disk

CONFIG = config_of()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a text, and the bundle of both engines in float32."""
    folder = tmp_path_factory.mktemp("engines")
    write_checkpoint(folder / "checkpoint", CONFIG, random_weights(CONFIG))
    (folder / "song.txt").write_text(TEXT, encoding="utf-8")
    options = ("--engines", "onnx,torchscript", "--precision", "float32", "--text", folder / "song.txt")
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "--checkpoint", folder / "checkpoint", "--out", folder / "bundle", *options) == 0
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(exported, tmp_path / "copy")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m export` on one thread."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


def validate(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> int:
    """Exit status of `python -m export validate`, told the checkpoint and a few tokens."""
    options = ("--checkpoint", folder / "checkpoint", "--tokens", 50)
    return run(monkeypatch, "validate", folder / "bundle", *options, *arguments)


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command writes."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = (line for line in captured.err.splitlines() if line.startswith("error: "))
    assert captured.err.endswith(line + "\n")
    return line


def records(folder: Path, engine: str) -> tuple[Validation, ...]:
    return open_bundle(folder / "bundle").manifest.engines[engine]["float32"].validated


def test_every_engine_is_written_and_measured_on_the_same_text(exported: Path) -> None:
    bundle = open_bundle(exported / "bundle")
    manifest = bundle.manifest
    assert {engine: set(held) for engine, held in manifest.engines.items()} == {
        "onnx": {"float32"},
        "torchscript": {"float32"},
    }
    assert [(m.engine, m.precision, m.data) for m in manifest.metrics] == [
        ("onnx", "float32", "song.txt"),
        ("torchscript", "float32", "song.txt"),
    ]
    artefact = manifest.engines["torchscript"]["float32"]
    assert artefact.files == tuple(f"torchscript/float32/{name}" for name in ("head.pt2", "model.pt", "model.pt2"))
    [record], [other] = artefact.validated, manifest.engines["onnx"]["float32"].validated
    assert record.versions == {"python": sys.version.split()[0], "numpy": np.__version__, "torch": torch.__version__}
    assert record.reference_perplexity == other.reference_perplexity
    assert abs(record.cost) <= 1e-4
    vocabulary = bundle.vocabulary()
    reader = ExportedReader(TorchScriptModel(bundle.paths(artefact)))
    ids = vocabulary.encode(TEXT)
    assert perplexity(reader, ids, vocabulary.eos_id, lambda _: None) == pytest.approx(record.perplexity, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--engines", "onnx,tensorflow"), "there is no engine 'tensorflow' to export for; choose from onnx, "),
        (("--engines", "torchscript", "--precision", "int8"), "none of the engines has precision 'int8': torchscript "),
        (("--engines", "onnx, torchscript", "--precision", "int8"), "torchscript has none of the precisions given: "),
        (("--precision", "float64"), "none of the engines has precision 'float64': onnx has float32 and int8"),
    ],
    ids=["engine", "precision", "not its precision", "no precision"],
)
def test_what_cannot_be_exported_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    problem: str,
) -> None:
    before = contents(folder)
    out = folder / "other"
    assert run(monkeypatch, "--checkpoint", folder / "checkpoint", "--out", out, *arguments) == 2
    assert one_error(capsys).startswith(f"error: {problem}")
    assert contents(folder) == before


def test_a_validation_on_other_hardware_is_added_and_one_on_the_same_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, name = records(folder, "torchscript"), open_bundle(folder / "bundle").sha256
    before = contents(folder / "bundle")
    monkeypatch.setattr("export.exporter.processor_name", lambda: "another processor")
    song = ("--text", folder / "song.txt")
    assert validate(monkeypatch, folder, *song) == 0
    assert "is validated on cpu" in capsys.readouterr().out
    for engine in ("onnx", "torchscript"):
        old, new = records(folder, engine)
        assert new.hardware == old.hardware | {"processor": "another processor"}
        assert (new.device, new.data, new.tokens) == ("cpu", "song.txt", 50)
    assert records(folder, "torchscript")[:1] == first
    after = contents(folder / "bundle")
    assert [name for name in before if after[name] != before[name]] == ["manifest.json"]
    assert open_bundle(folder / "bundle").sha256 != name

    assert validate(monkeypatch, folder, *song, "--engines", "torchscript", "--tokens", 60) == 0
    assert [record.tokens for record in records(folder, "torchscript")][1:] == [60]
    assert [record.tokens for record in records(folder, "onnx")][1:] == [50]
    assert validate(monkeypatch, folder, "--engines", "torchscript") == 0
    assert [record.data for record in records(folder, "torchscript")][1:] == ["song.txt", "text the model wrote"]


def other_model(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint")
    config = config_of(hidden_size=20)
    write_checkpoint(folder / "checkpoint", config, random_weights(config))


def other_weights(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint")
    write_checkpoint(folder / "checkpoint", CONFIG, random_weights(CONFIG, seed=9))


def without_torchscript(folder: Path) -> None:
    manifest = open_bundle(folder / "bundle").manifest
    shutil.rmtree(folder / "bundle" / "torchscript")
    engines = {"onnx": manifest.engines["onnx"]}
    files = sums_of(folder / "bundle")
    write_manifest(folder / "bundle", Manifest(**{**dict(manifest), "engines": engines, "files": files}))


def damaged(folder: Path) -> None:
    (folder / "bundle" / "onnx" / "float32" / "weights.bin").write_bytes(b"")


def untouched(folder: Path) -> None: ...


@pytest.mark.parametrize(
    ("change", "arguments", "problem"),
    [
        (other_model, (), "was not made of"),
        (other_weights, (), "onnx float32: hidden differs from the reference by"),
        (without_torchscript, ("--engines", "torchscript"), "holds nothing for torchscript; it holds onnx"),
        (damaged, (), "has 0 bytes instead of"),
        (untouched, ("--checkpoint", "/nowhere"), "/nowhere is not a folder"),
    ],
)
def test_a_validation_that_fails_changes_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], Any],
    arguments: tuple[str, ...],
    problem: str,
) -> None:
    change(folder)
    before = contents(folder)
    assert validate(monkeypatch, folder, *arguments) == 2
    assert problem in one_error(capsys)
    assert contents(folder) == before


def test_a_manifest_for_which_there_is_no_room_stays_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    for moment in itertools.count():
        with full_disk(folder / "bundle", moment) as moments:
            status = validate(monkeypatch, folder, "--engines", "onnx")
        if not moments.struck:
            break
        if contents(folder) == before:
            assert status == 2
            assert "No space left on device" in one_error(capsys)
        else:
            assert len(records(folder, "onnx")) == 2
            (folder / "bundle" / "manifest.json").write_bytes(before["bundle/manifest.json"])
        capsys.readouterr()
    assert moment >= 3
    assert status == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_validation_on_a_gpu_that_is_not_there_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(monkeypatch, folder, "--device", "cuda") == 2
    assert "this torch finds no GPU" in one_error(capsys)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bundle_made_on_a_cpu_is_validated_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate(monkeypatch, folder, "--device", "cuda") == 0
    assert [record.device for record in records(folder, "torchscript")] == ["cpu", "cuda"]
    assert [record.device for record in records(folder, "onnx")] == ["cpu"]
    assert records(folder, "torchscript")[1].hardware["gpu"] == torch.cuda.get_device_name()


def test_a_weight_that_is_no_number_is_refused_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, value in enumerate((np.nan, np.inf, -np.inf)):
        weights = random_weights(CONFIG)
        weights["layers.1.context.weight"][0, 0, 0, 0] = value
        checkpoint = write_checkpoint(folder / f"broken{index}", CONFIG, weights)
        for engine in ("onnx", "torchscript"):
            options = ("--checkpoint", checkpoint, "--out", folder / "other", "--engines", engine)
            assert run(monkeypatch, *options) == 2
            assert "layers.1.context.weight holds values that are not finite" in one_error(capsys)
    assert not (folder / "other").exists()
