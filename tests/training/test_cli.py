"""The training commands as a person runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import read_record
from model.dropout import Dropout
from tests.commands import exit_status
from training import presets
from training.cli import main
from training.memory import enough_memory
from training.presets import Preset
from training.recipe import Optimizer, Recipe
from training.run_record import read_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that trains on the test corpus in a moment."""
    recipe = Recipe(
        optimizer=Optimizer.SGD,
        learning_rate=5,
        epochs=1,
        batch_size=4,
        bptt=10,
        dropout=Dropout.standard(0.1),
        clip=0.25,
        bfloat16=False,
    )
    architecture = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    monkeypatch.setitem(presets.PRESETS, "tiny", Preset("tiny", "for tests", architecture, recipe))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training` with these arguments."""
    return exit_status(monkeypatch, main, *arguments)


def test_train_then_evaluate_gives_the_perplexity_of_the_record(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "train", "--data", corpus_folder, "--preset", "tiny", "--out", out) == 0
    printed = capsys.readouterr().err
    assert "epoch 1/1: training perplexity" in printed
    assert "finished; the checkpoint is" in printed
    record = json.loads((out / "training.json").read_text())
    for arguments in (["--data", corpus_folder, "--split", "test"], ["--text", corpus_folder / "test.txt"]):
        assert run(monkeypatch, "evaluate", "--checkpoint", out, *arguments, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["perplexity"] == record["perplexity"]["test"]
        assert answer["tokens"] == record["tokens"]["test"]
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--data", corpus_folder, "--split", "valid") == 0
    assert f"perplexity {record['perplexity']['valid']:.2f}" in capsys.readouterr().out


def test_training_says_and_records_how_much_of_each_text_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "train.txt").write_text("the cat sat on the mat by itself\nthe cat sat on the mat by night\n" * 20)
    (data / "valid.txt").write_text("the cat sat on the roof by day\n" * 5)
    assert run(monkeypatch, "train", "--data", data, "--preset", "tiny", "--out", out, "--min-count", 21) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "a vocabulary of 8 words; unknown are 11.1% of train, 22.2% of valid" in said
    record = read_record(out)
    assert record["tokens"] == {"train": 360, "valid": 45}
    assert record["unknown_tokens"] == {"train": 40, "valid": 10}
    assert record["vocabulary"]["words"] == 8
    assert read_run(out).perplexity["valid"] > 1


def test_a_file_is_evaluated_on_what_was_held_out_of_it_and_a_corpus_on_its_test_split(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "my-text.txt", tmp_path / "out"
    text.write_text((corpus_folder / "train.txt").read_text())
    assert run(monkeypatch, "train", "--data", text, "--preset", "tiny", "--out", out) == 0
    record = read_record(out)
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--data", text) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"my-text valid: perplexity {record['perplexity']['valid']:.2f} over ")
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--data", corpus_folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"] == f"{corpus_folder.name} test"
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--data", text, "--split", "test") == 2
    assert "my-text has no test split; give --split train or valid" in capsys.readouterr().err


def test_hard_wrapped_text_is_trained_and_evaluated_by_paragraphs_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "train.txt").write_text("the cat sat\non the mat\n\nthe dog\nsat\n\n" * 40)
    (data / "valid.txt").write_text("the cat sat\n  on the mat\n \n\nthe dog\nsat\n" * 3)
    common = ("--data", data, "--join-lines")
    assert run(monkeypatch, "train", *common, "--preset", "tiny", "--out", out) == 0
    record = read_record(out)
    assert record["data"]["lines_joined"] is True
    # Nine words and two ends of lines a time; of validation, the last paragraph goes on in the next time.
    assert record["tokens"] == {"train": 440, "valid": 9 * 3 + 4}
    assert read_run(out).data.lines_joined
    capsys.readouterr()
    for source in (common, ("--text", data / "valid.txt", "--join-lines")):
        assert run(monkeypatch, "evaluate", "--checkpoint", out, *source, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["data"].endswith(", lines joined")
        assert answer["perplexity"] == record["perplexity"]["valid"]
    assert run(monkeypatch, "evaluate", "--checkpoint", out, "--data", data, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["data"], answer["tokens"]) == ("data valid", 9 * 3 + 6 * 3)


def test_only_a_newline_ends_a_line_of_an_evaluated_text(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", corpus_folder, "--preset", "tiny", "--out", tmp_path / "out"]
    assert run(monkeypatch, "train", *arguments) == 0
    (tmp_path / "text.txt").write_text("the\x0ccat\u2028sat\n")
    capsys.readouterr()
    text = ["--text", tmp_path / "text.txt", "--json"]
    assert run(monkeypatch, "evaluate", "--checkpoint", tmp_path / "out", *text) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 4


def test_time_that_is_up_stops_the_run_and_resume_ends_it(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", corpus_folder, "--preset", "tiny", "--out", tmp_path / "out"]
    assert run(monkeypatch, *arguments, "--max-minutes", "0") == 0
    assert "time is up, --resume goes on" in capsys.readouterr().err.replace("\n", " ")
    assert run(monkeypatch, *arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--resume") == 0
    assert json.loads((tmp_path / "out" / "training.json").read_text())["finished"]


def test_presets_lists_the_models_of_the_paper_with_their_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "presets", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sizes = {row["preset"]: f"{row['parameters'] / 1e6:.2f}" for row in rows}
    assert {"dropout", "clip"} <= rows[0]["recipe"].keys()
    assert {"mogrifier_rounds", "softmaxes"} <= rows[0]["model"].keys()
    table_1 = {
        "pru-g1": "18.97",
        "pru-g2": "18.51",
        "pru-g4": "18.90",
        "lstm-1000": "19.87",
        "lstm-1200": "25.79",
        "lstm-1400": "32.68",
    }
    assert {name: sizes[name] for name in table_1} == table_1
    assert {sizes[name] for name in sizes if "pru-g4" in name} == {"18.90"}
    assert sizes["small"] == sizes["small-finetuned"] == "4.20"
    monkeypatch.setenv("COLUMNS", "140")
    assert run(monkeypatch, "presets", "--vocabulary-size", "33278") == 0
    assert "28.23" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--data", "CORPUS", "--out", "OUT", "--preset", "huge"],
            "no preset is called huge; `pru presets` lists all",
        ),
        (
            ["train", "--data", "CORPUS", "--out", "OUT", "--preset", "smal"],
            "no preset is called smal (near it: small); `pru presets` lists all",
        ),
        (["train", "--data", "nowhere", "--out", "OUT", "--preset", "tiny"], "nowhere"),
        (["train", "--data", "CORPUS", "--out", "OUT", "--preset", "tiny", "--resume"], "nothing to resume"),
        (["train", "--data", "CORPUS", "--out", "OUT", "--preset", "small"], "are too few: they are read in 20 rows"),
        (["evaluate", "--checkpoint", "nowhere", "--data", "CORPUS"], "nowhere is not a folder"),
        (["evaluate", "--checkpoint", "nowhere"], "--data or by --text"),
        (["evaluate", "--checkpoint", "x" * 300, "--data", "CORPUS"], "File name too long"),
        (["train", "--data", "x" * 300, "--out", "OUT"], "File name too long"),
        (["evaluate", "--checkpoint", "nowhere", "--data", "CORPUS", "--split", "dev"], "--split must be one of"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line_and_status_2(
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    if "small" in arguments:
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.txt").write_text("one two two\n")
        corpus_folder = tmp_path
    paths = {"CORPUS": str(corpus_folder), "OUT": str(tmp_path / "out")}
    assert run(monkeypatch, *(paths.get(argument, argument) for argument in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert any(part in error for part in said.split("|")), error
    assert not (tmp_path / "out").exists()


def test_own_text_that_is_called_like_a_corpus_does_not_get_that_corpus_s_recipe(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = presets.PRESETS["tiny"]
    monkeypatch.setitem(presets.PRESETS, "tiny", replace(tiny, by_corpus={"wikitext-2": {"epochs": 7}}))
    shutil.copytree(corpus_folder, tmp_path / "wikitext-2")
    out = tmp_path / "out"
    assert run(monkeypatch, "train", "--data", tmp_path / "wikitext-2", "--out", out, "--preset", "tiny") == 0
    record = read_record(out)
    assert record["data"]["name"] == "wikitext-2"
    assert record["recipe"]["epochs"] == tiny.recipe.epochs
    assert not read_run(out).changed


FULL = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to get 9"


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (RuntimeError(f"{FULL}\nframe #0"), FULL),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more"), "CUDA out of memory."),
        (MemoryError(), "()"),
    ],
    ids=["torch", "cuda", "python"],
)
def test_a_model_that_memory_does_not_hold_is_one_line(
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: Exception,
    reason: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("training.cli.Trainer", refuse)
    assert run(monkeypatch, "train", "--data", corpus_folder, "--out", tmp_path / "out", "--preset", "tiny") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: memory is full: lower --max-vocab, --set recipe.batch_size or the model's sizes (")
    assert reason in error
    assert "\n" not in error


def test_another_error_of_torch_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="illegal"), enough_memory("less"):
        raise RuntimeError("an illegal memory access was encountered")


def test_more_threads_than_any_machine_has_cores_are_refused(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", corpus_folder, "--out", tmp_path / "out", "--threads", 1_000_000)
    assert run(monkeypatch, "train", *options) == 2
    error = capsys.readouterr().err
    assert "--threads" in error
    assert "1024" in error


def test_ctrl_c_leaves_a_checkpoint_and_a_run_that_can_go_on(corpus_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # The real preset, so that an update takes long enough to be interrupted; many epochs, so that it never finishes.
    command = [sys.executable, "-m", "training", "train", "--data", str(corpus_folder), "--out", str(out)]
    command += ["--epochs", "100000", "--threads", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"TERM": "dumb"})
    deadline = time.monotonic() + 90
    while not (out / "resume.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted" in error
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json", "resume.safetensors"} == {
        path.name for path in out.iterdir()
    }
