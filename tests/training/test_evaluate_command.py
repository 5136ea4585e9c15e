"""The ways of evaluating a checkpoint, as a person asks for them; static ones are in `test_cli`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.conventions import Convention
from model.files import write_json
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary
from tests.commands import exit_status
from tests.training.conftest import SENTENCES, config
from training.cli import main
from training.dynamic_evaluation import DynamicEvaluation, evaluate_dynamically, gradient_statistics
from training.evaluate import evaluate
from training.neural_cache import NeuralCache, evaluate_with_cache
from training.temperature import tune_temperature


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    vocabulary = Vocabulary.from_lines(SENTENCES, Convention.PTB)
    torch.manual_seed(1)
    model = LanguageModel(config(vocabulary))
    with torch.no_grad():
        model.embedding.weight.mul_(10)
    save_checkpoint(folder, model, vocabulary, {})
    return folder


def evaluation(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training evaluate` with these arguments."""
    return exit_status(monkeypatch, main, "evaluate", "--device", "cpu", *arguments)


@pytest.mark.parametrize(
    ("options", "evaluated", "parameters", "measure"),
    [
        ([], "static", {}, "perplexity"),
        (["--temperature", "0.9"], "temperature", {"temperature": 0.9}, "temperature_perplexity"),
        (
            ["--neural-cache"],
            "neural_cache",
            {"lambda": 0.1, "theta": 1.0, "window": 500},
            "neural_cache_perplexity",
        ),
        (
            ["--neural-cache", "--cache-lambda", "0.2", "--cache-theta", "0.5", "--cache-window", "9"],
            "neural_cache",
            {"lambda": 0.2, "theta": 0.5, "window": 9},
            "neural_cache_perplexity",
        ),
        (
            ["--dynamic", "--dynamic-lr", "1e-3", "--dynamic-bptt", "4"],
            "dynamic",
            {"bptt": 4, "lr": 1e-3, "lambda": 2e-3, "epsilon": 2e-5, "statistics_of": "CORPUS train"},
            "dynamic_perplexity",
        ),
    ],
)
def test_a_result_names_its_evaluation_and_parameters_and_no_two_kinds_share_a_field(
    checkpoint: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    evaluated: str,
    parameters: dict[str, Any],
    measure: str,
) -> None:
    assert evaluation(monkeypatch, "--checkpoint", checkpoint, "--data", corpus_folder, *options, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    expected = {
        name: value.replace("CORPUS", corpus_folder.name) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
    assert (answer["evaluation"], answer["parameters"]) == (evaluated, expected)
    of_known = {"perplexity_of_known"} if evaluated == "static" else set()
    assert set(answer) == {"data", "tokens", "unknown_tokens", "evaluation", "parameters", measure} | of_known


def test_unknown_words_are_counted_and_a_static_figure_stands_without_them_too(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the zebra sat on the mat\n\nthe gnu\n")
    model, vocabulary, _ = load_checkpoint(checkpoint)
    asked = ("--checkpoint", checkpoint, "--text", text)
    assert evaluation(monkeypatch, *asked, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    result = evaluate(model, vocabulary.encode(text.read_text()), vocabulary.eos_id, unk_id=vocabulary.unk_id)
    assert result.known is not None
    assert (answer["tokens"], answer["unknown_tokens"]) == (11, 2)
    assert answer["perplexity_of_known"] == result.known.perplexity != result.perplexity
    assert evaluation(monkeypatch, *asked) == 0
    line = f"perplexity {result.perplexity:.2f} over 11 tokens; 18.2% of them unknown, without them perplexity "
    assert f"{line}{result.known.perplexity:.2f}\n" in capsys.readouterr().out
    assert evaluation(monkeypatch, *asked, "--neural-cache") == 0
    assert capsys.readouterr().out.endswith("; 18.2% of them unknown\n")


def test_figures_are_those_of_the_functions_and_the_terminal_says_what_they_are(
    checkpoint: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, vocabulary, _ = load_checkpoint(checkpoint)
    splits = ("train", "test")
    train, test = (vocabulary.encode((corpus_folder / f"{split}.txt").read_text()) for split in splits)
    common = ("--checkpoint", checkpoint, "--data", corpus_folder)
    cached = evaluate_with_cache(model, test, vocabulary.eos_id, NeuralCache(0.1, 1.0, 500))
    assert evaluation(monkeypatch, *common, "--neural-cache") == 0
    said = (
        f"neural cache perplexity {cached.perplexity:.2f} over {len(test):,} tokens (lambda 0.1, theta 1.0, window 500)"
    )
    assert said in capsys.readouterr().out
    statistics = gradient_statistics(model, train, vocabulary.eos_id, 5)
    dynamic = evaluate_dynamically(
        model, test, vocabulary.eos_id, statistics, DynamicEvaluation(), statistics_of="train"
    )
    assert evaluation(monkeypatch, *common, "--dynamic") == 0
    printed = capsys.readouterr().out
    assert f"dynamic perplexity {dynamic.perplexity:.2f} over {len(test):,} tokens (bptt 5, lr 5e-05" in printed
    assert f"statistics of {corpus_folder.name} train)" in printed


def test_a_temperature_is_tuned_on_validation_whatever_is_reported_and_the_result_says_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split, sentences in (("train", SENTENCES * 4), ("valid", SENTENCES[:2] * 3), ("test", SENTENCES[2:] * 3)):
        (corpus / f"{split}.txt").write_text("\n".join(sentences) + "\n")
    model, vocabulary, _ = load_checkpoint(checkpoint)
    valid, test = (vocabulary.encode((corpus / f"{split}.txt").read_text()) for split in ("valid", "test"))
    expected, other = (tune_temperature(model, ids, vocabulary.eos_id) for ids in (valid, test))
    assert abs(expected - other) > 0.01
    common = ("--checkpoint", checkpoint, "--data", corpus, "--temperature", "auto")
    for split in ("valid", "test"):
        assert evaluation(monkeypatch, *common, "--split", split, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["data"] == f"corpus {split}"
        assert answer["parameters"] == {"temperature": expected, "tuned_on": "corpus valid"}
    assert evaluation(monkeypatch, *common) == 0
    assert "tuned on corpus valid)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--neural-cache", "--dynamic"], "give one of them"),
        (["--neural-cache", "--temperature", "auto"], "give one of them"),
        (["--cache-theta", "1"], "belong to --neural-cache; give that too"),
        (["--dynamic-lr", "0"], "belong to --dynamic; give that too"),
        (["--neural-cache", "--cache-lambda", "1.5"], "lambda must lie between 0 and 1, not 1.5"),
        (["--neural-cache", "--cache-window", "0"], "window must be at least 1"),
        (["--dynamic", "--dynamic-lr", "nan"], "lr must be a finite number of at least 0"),
        (["--dynamic", "--dynamic-lr", "-1"], "lr must be a finite number of at least 0"),
        (["--temperature", "warm"], "--temperature must be a number or auto, not warm"),
        (["--temperature", "0"], "temperature must be a finite number above 0"),
        (["--temperature", "1e-40"], "temperature perplexity nan over 189 tokens (temperature 1e-40): that is beyond"),
        (["--neural-cache", "--cache-theta", "1e300"], "theta 1e+300, window 500): that is beyond float32; choose"),
        (["--dynamic", "--text"], "--dynamic takes its statistics from the train split of a corpus; give --data"),
        (["--temperature", "auto", "--text"], "is tuned on the valid split of a corpus; give --data"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line_and_status_2(
    checkpoint: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    source = [corpus_folder / "test.txt"] if options[-1] == "--text" else ["--data", corpus_folder]
    assert evaluation(monkeypatch, "--checkpoint", checkpoint, *options, *source) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = captured.err.strip()
    assert "\n" not in error
    assert said in error


def test_results_are_kept_in_the_record_each_evaluation_of_a_text_once(
    checkpoint: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    write_json(copy / "training.json", {"preset": "none"})
    asked = ["--checkpoint", copy, "--data", corpus_folder]
    for options in ([], ["--temperature", "0.9"], ["--temperature", "0.9"], ["--split", "valid"]):
        assert evaluation(monkeypatch, *asked, *options, "--record") == 0
    assert evaluation(monkeypatch, *asked, "--temperature", "0.8") == 0
    record = json.loads((copy / "training.json").read_text())
    name = corpus_folder.name
    kept = [(one["data"], one["evaluation"], one["parameters"]) for one in record["evaluations"]]
    assert kept == [
        (f"{name} test", "static", {}),
        (f"{name} test", "temperature", {"temperature": 0.9}),
        (f"{name} valid", "static", {}),
    ]
    assert record["preset"] == "none"
    assert record["evaluations"][0]["perplexity"] > 1
    assert "perplexity" not in record["evaluations"][1]


EVERY_KIND = pytest.mark.parametrize(
    "kind", [[], ["--temperature", "auto"], ["--temperature", "0.9"], ["--neural-cache"], ["--dynamic"]]
)


@EVERY_KIND
def test_the_model_is_evaluated_where_it_is_asked_for_and_the_record_says_how_a_gpu_rounds(
    checkpoint: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: list[str],
) -> None:
    moved: list[object] = []
    monkeypatch.setattr("training.evaluate_command.find_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(LanguageModel, "to", lambda _, place: moved.append(place))
    assert evaluation(monkeypatch, "--checkpoint", checkpoint, "--data", corpus_folder, *kind, "--json") == 0
    assert moved == [torch.device("cuda")]
    answer = json.loads(capsys.readouterr().out)
    assert answer.get("recurrence") == (None if kind == ["--dynamic"] else "float16")


def test_a_gpu_that_there_is_not_is_one_line(
    checkpoint: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ("--checkpoint", checkpoint, "--data", corpus_folder, "--device", "cuda")
    assert evaluation(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith("error: this torch finds no CUDA device")


@pytest.mark.gpu
@EVERY_KIND
def test_a_gpu_gives_the_figures_of_the_cpu(
    checkpoint: Path,
    corpus_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: list[str],
) -> None:
    figures = []
    for device in ("cpu", "cuda"):
        arguments = ("--checkpoint", checkpoint, "--data", corpus_folder, "--device", device)
        assert evaluation(monkeypatch, *arguments, *kind, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        figures.append(next(value for name, value in answer.items() if name.endswith("perplexity")))
    assert figures[1] == pytest.approx(figures[0], rel=2e-3)
