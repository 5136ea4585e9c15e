"""From a checkpoint to a bundle in a terminal: what is written and refused, and that nothing is left half-written."""

from __future__ import annotations

import errno
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from export import exporter, graphs
from export.cli import main
from export.texts import write_text
from export.validate import ExportedReader, perplexity
from model.bundle import open_bundle
from model.checkpoint import load_checkpoint
from model.onnx_model import OnnxModel
from tests.export.reference import ReferenceModel
from tests.export.samples import TEXT, config_of, random_weights, vocabulary_of, write_checkpoint

CONFIG = config_of()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, random_weights(CONFIG))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "song.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m export` on one thread."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command writes."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = (line for line in captured.err.splitlines() if line.startswith("error: "))
    assert captured.err.endswith(line + "\n")
    return line


def test_an_export_is_a_bundle_that_says_what_it_was_validated_on(
    checkpoint: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    names = ("--text-name", "a song", "--name", "small", "--licence", "MIT", "--attribution", "the men")
    use = ("--intended-use", "singing", "--limitations", "few words")
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", out, "--text", text, *names, *use) == 0
    report = capsys.readouterr().out
    bundle = open_bundle(out)
    manifest = bundle.manifest
    assert (manifest.name, manifest.licence, manifest.attribution) == ("small", "MIT", "the men")
    assert (manifest.intended_use, manifest.limitations) == ("singing", "few words")
    assert manifest.model == CONFIG
    assert manifest.training == {"preset": "none", "seed": 0}
    assert bundle.vocabulary().words == vocabulary_of(CONFIG).words
    assert set(manifest.engines["onnx"]) == {"float32", "int8"}

    vocabulary = bundle.vocabulary()
    ids = vocabulary.encode(TEXT)
    reference = ReferenceModel(CONFIG, random_weights(CONFIG))
    stream = np.concatenate([[vocabulary.eos_id], ids]).astype(np.int32)
    hidden, _ = reference.advance(stream[:-1], np.zeros(CONFIG.state_size))
    expected = math.exp(-reference.log_probabilities(hidden)[np.arange(len(ids)), ids].mean())
    assert [(m.data, m.engine, m.precision, m.tokens) for m in manifest.metrics] == [
        ("a song", "onnx", "float32", len(ids)),
        ("a song", "onnx", "int8", len(ids)),
    ]
    for metric, tolerance in zip(manifest.metrics, (1e-6, 0.002), strict=True):
        artefact = manifest.engines["onnx"][metric.precision]
        assert metric.perplexity == pytest.approx(expected, rel=tolerance)
        [record] = artefact.validated
        assert record.reference_perplexity == pytest.approx(expected, rel=1e-6)
        assert record.cost == metric.perplexity / record.reference_perplexity - 1
        assert record.versions.keys() == {"python", "numpy", "onnx", "onnxruntime", "torch"}
        assert (record.device, record.data, record.tokens) == ("cpu", "a song", len(ids))
        assert f"{metric.perplexity:.4f}" in report
        loaded = OnnxModel(bundle.paths(artefact), threads=1)
        assert perplexity(ExportedReader(loaded), ids, vocabulary.eos_id, lambda _: None) == metric.perplexity


def test_one_precision_may_be_chosen_and_without_a_text_no_quality_is_claimed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "folder" / "bundle"
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", out, "--precision", "int8", "--tokens", 300) == 0
    manifest = open_bundle(out).manifest
    assert manifest.name == "checkpoint"
    assert set(manifest.engines["onnx"]) == {"int8"}
    assert manifest.metrics == ()
    [record] = manifest.engines["onnx"]["int8"].validated
    assert (record.data, record.tokens) == ("text the model wrote", 300)


def test_the_text_a_model_writes_is_always_the_same_and_follows_its_distribution(checkpoint: Path) -> None:
    model, vocabulary, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.decoder.bias[7] += 3.0
    text, again = (write_text(model, vocabulary.eos_id) for _ in range(2))
    assert text.name is None
    assert len(text.ids) == 16 * 128
    np.testing.assert_array_equal(text.ids, again.ids)
    rows = torch.from_numpy(text.ids.reshape(16, 128)).long()
    before = torch.cat([torch.full((16, 1), vocabulary.eos_id), rows[:, :-1]], dim=1)
    hidden, _ = model(before, model.initial_state(16))
    expected = model.log_probabilities(hidden).exp()[..., 7].mean().item()
    assert expected > 3 / len(vocabulary)
    assert np.mean(text.ids == 7) == pytest.approx(expected, abs=0.05)


def test_a_precision_that_costs_too_much_is_refused_and_nothing_is_left(
    checkpoint: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.validate.Measured.cost", 0.01)
    options = ("--precision", "int8", "--text", text)
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", tmp_path / "bundle", *options) == 2
    assert "int8 costs 1.000% of perplexity" in one_error(capsys)
    assert set(tmp_path.iterdir()) == {checkpoint, text}
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", tmp_path / "bundle", *options, "--max-cost", 0.02) == 0


def test_a_bundle_is_replaced_only_when_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    options = ("--checkpoint", checkpoint, "--out", out, "--precision", "int8", "--tokens", 50)
    assert run(monkeypatch, *options) == 0
    (out / "manifest.json").write_text('{"format_version": 0, "engines": {}}', encoding="utf-8")
    capsys.readouterr()
    assert run(monkeypatch, *options) == 2
    assert "is already a bundle" in one_error(capsys)
    assert run(monkeypatch, *options, "--force") == 0
    assert open_bundle(out).manifest.name == "checkpoint"
    assert set(tmp_path.iterdir()) == {checkpoint, out}


@pytest.mark.parametrize("kind", ["folder", "file", "link", "other manifest"])
def test_what_is_not_a_bundle_is_never_replaced(
    kind: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_bytes(b"precious")
    elif kind == "link":
        out.symlink_to(tmp_path / "nothing")
    else:
        out.mkdir()
        (out / "manifest.json" if kind == "other manifest" else out / "precious").write_text("{}", encoding="utf-8")
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", out, "--force") == 2
    assert "is not a bundle" in one_error(capsys)
    assert set(tmp_path.iterdir()) == {checkpoint, out}


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    options = ("--checkpoint", checkpoint, "--out", out, "--precision", "int8", "--tokens", 50)
    assert run(monkeypatch, *options) == 0
    before = open_bundle(out).sha256
    capsys.readouterr()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graphs, "write_atomically", full)
    assert run(monkeypatch, *options, "--force") == 2
    assert "cannot be written: No space left on device" in one_error(capsys)
    assert open_bundle(out).sha256 == before
    assert set(tmp_path.iterdir()) == {checkpoint, out}


def test_ctrl_c_leaves_nothing_and_is_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "check_values", interrupt)
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", tmp_path / "bundle", "--tokens", 50) == 2
    assert "interrupted; nothing was written" in one_error(capsys)
    assert set(tmp_path.iterdir()) == {checkpoint}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"\xff\xfe", "UTF-8"), (b" \n\n", "holds no text")],
    ids=["missing", "binary", "empty"],
)
def test_a_text_that_cannot_be_read_is_refused(
    content: bytes | None,
    problem: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    assert run(monkeypatch, "--checkpoint", checkpoint, "--out", tmp_path / "bundle", "--text", path) == 2
    error = one_error(capsys)
    assert problem in error
    assert str(path) in error


def test_a_missing_checkpoint_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--checkpoint", tmp_path / "nothing", "--out", tmp_path / "bundle") == 2
    assert "nothing is not a folder" in one_error(capsys)
