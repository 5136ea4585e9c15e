"""The benchmark of GPUs goes through its motions on a CPU, and prints no figure there."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import gpu


def test_a_rehearsal_makes_every_comparison_and_prints_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.harness.SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse"])
    gpu.main()
    assert capsys.readouterr().out == "Rehearsed: 11 comparisons. Nothing was measured.\n"


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="error: there is no GPU that torch can use"):
        gpu.main()


def test_every_row_names_its_figures_and_its_bar_and_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.SECONDS", 0.0)
    rows = gpu.measure(gpu.rehearsal())
    assert [row.name.split(":")[0] for row in rows] == [
        "a token at batch 1, layers, in a graph",
        "a token at batch 1, layers, in a graph",
        "a token at batch 1, layers, in a graph",
        "the same with the 5 likeliest words",
        *["a step of a layer in a sequence at batch 1"] * 2,
        *["a step of a layer in a sequence at batch 2"] * 2,
        "scoring at batch 2",
    ]
    assert all(row.value > 0 for row in rows)
    assert rows[0].figures.startswith("cuDNN ")
    assert "tok/s" in rows[-1].figures
    bars = [">= 3x", "<= 25 us", None, None, *[">= 2x", ">= 1x"] * 2, ">= 2 million tok/s"]
    assert [row.bar for row in rows] == bars


def test_training_is_measured_in_epochs_of_each_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.SECONDS", 0.0)
    epoch, launches = gpu.rehearsed_training()
    assert epoch.name == "an epoch of ptb in updates of 20 x 70"
    assert (epoch.bar, epoch.unit) == ("<= 6 s", " s")
    assert epoch.value > 0
    # On a CPU there is nothing to capture.
    assert launches.value == 1
