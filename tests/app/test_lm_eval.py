"""`lm_eval` as it is, without a network, against a serving process: its numbers are those of training's evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import load_checkpoint
from tests.app.bundles import export_small_bundle
from tests.app.fakes import CORPUS
from tests.app.processes import ROOT, Service, served
from training.evaluate import Evaluation, evaluate

TASK = ROOT / "benchmarks" / "lm_eval" / "pru_wikitext2.yaml"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

CHOICES = [
    {"before": "the harbour is", "ways": [" small", " known"]},
    {"before": "the sea is the meaning of", "ways": [" life .", " boats ."]},
    {"before": "green is", "ways": [" right .", " 1897 ."]},
]
"""What came before, and two ways to go on."""

CHOICE_TASK = """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "<eos> {{{{before}}}}"
doc_to_choice: ways
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
WRITING_TASK = """
task: writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "<eos> {{{{before}}}}"
doc_to_target: "{{{{ways[0]}}}}"
generation_kwargs: {{until: ["\\n", " the"], max_gen_toks: 9, do_sample: false, temperature: 0}}
metric_list: [{{metric: exact_match}}]
"""


def run_lm_eval(service: Service, model: str, tasks: str, text: Path, folder: Path) -> dict[str, Any]:
    """What `lm_eval` reports; the samples of each task are in files of `folder`."""
    arguments = f"model={model},base_url={service.url}/v1/completions,max_length=1000000,num_concurrent=2"
    options = {"model": "local-completions", "model_args": arguments, "tasks": tasks, "output_path": folder / "results"}
    options["metadata"] = json.dumps({"text": str(text)})
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--log_samples", *(f"--{it}={options[it]}" for it in options)],
        env=os.environ | OFFLINE | {"HF_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    [report] = (folder / "results").rglob("results_*.json")
    results: dict[str, Any] = json.loads(report.read_text())["results"]
    return results


def evaluation_of(checkpoint: Path, text: str) -> Evaluation:
    """What `python -m training evaluate` says of a text."""
    model, vocabulary, _ = load_checkpoint(checkpoint)
    return evaluate(model, vocabulary.encode(text), vocabulary.eos_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's bundle and checkpoint, and a text."""
    folder = tmp_path_factory.mktemp("lm_eval")
    export_small_bundle(folder)
    (folder / "lines.txt").write_text(" \n" + "".join(f" {line} \n" for line in CORPUS * 3))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with served("-m", "app", bundle=str(folder / "bundle"), precision="float32") as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def choices(service: Service) -> list[dict[str, Any]]:
    """Some of which one way is the likeliest there is."""
    [best] = service.ask("/predict", text="the sea", k=1, include_special=True).json()["predictions"]
    return [*CHOICES, {"before": "the sea", "ways": [f" {best['token']}", " boats"]}]


@pytest.fixture(scope="module")
def report(folder: Path, service: Service, choices: list[dict[str, Any]]) -> dict[str, Any]:
    """What one run on three tasks reports."""
    data = folder / "choices.json"
    data.write_text("\n".join(map(json.dumps, choices)))
    (folder / "choices.yaml").write_text(CHOICE_TASK.format(data=data))
    (folder / "writing.yaml").write_text(WRITING_TASK.format(data=data))
    tasks = ",".join(map(str, (TASK, folder / "choices.yaml", folder / "writing.yaml")))
    return run_lm_eval(service, "small", tasks, folder / "lines.txt", folder)


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    [path] = (folder / "results").rglob(f"samples_{task}_*.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(found, key=lambda sample: int(sample["doc_id"]))


@pytest.mark.slow
def test_rolling_perplexity_is_that_of_training(report: dict[str, Any], folder: Path) -> None:
    expected = evaluation_of(folder / "checkpoint", (folder / "lines.txt").read_text())
    assert report["pru_wikitext2"]["word_perplexity,none"] == pytest.approx(expected.perplexity, rel=1e-5)
    [sample] = samples(folder, "pru_wikitext2")
    [[log_likelihood]] = sample["resps"]
    assert float(log_likelihood) == pytest.approx(-expected.negative_log_likelihood, rel=1e-5)
    assert sample["word_perplexity"][1] == expected.tokens


@pytest.mark.slow
def test_log_likelihoods_and_greediness_are_the_models_own(
    report: dict[str, Any], folder: Path, service: Service, choices: list[dict[str, Any]]
) -> None:
    right = []
    for choice, sample in zip(choices, samples(folder, "choices"), strict=True):
        found = [(float(value), is_greedy == "True") for [[value, is_greedy]] in sample["resps"]]
        expected = []
        for way in choice["ways"]:
            fields = {"text": way, "context": choice["before"], "include_eos": False, "return_tokens": True}
            [result] = service.ask("/perplexity", **fields).json()["results"]
            expected.append((result["log_likelihood"], all(token["rank"] == 1 for token in result["tokens"])))
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
        right.append(found[0][0] > found[1][0])
    assert found[0][1]
    assert report["choices"]["acc,none"] == pytest.approx(sum(right) / len(right))


@pytest.mark.slow
def test_what_it_lets_the_model_write_is_what_the_model_writes(
    report: dict[str, Any], folder: Path, service: Service, choices: list[dict[str, Any]]
) -> None:
    assert report["writing"]["sample_len"] == len(choices)
    for choice, sample in zip(choices, samples(folder, "writing"), strict=True):
        fields = {"prompt": choice["before"], "max_tokens": 9, "temperature": 0, "stop": [" the"]}
        answer = service.ask("/v1/completions", **fields).json()
        assert sample["resps"] == [[answer["choices"][0]["text"]]]


@pytest.mark.slow
def test_the_bundled_models_perplexity_on_wikitext_2_is_that_of_training(data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "wikitext-2" / "valid.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    text = tmp_path / "valid.txt"
    text.write_text("".join(lines[:60]), encoding="utf-8")
    with served("-m", "app") as service:
        service.wait_until_ready()
        results = run_lm_eval(service, "wikitext-2", str(TASK), text, tmp_path)
        native = service.ask("/perplexity", text=text.read_text(encoding="utf-8")).json()["perplexity"]
    found = results["pru_wikitext2"]["word_perplexity,none"]
    assert found == pytest.approx(native, rel=1e-6)
    # The checkpoint is float32 and the bundle int8.
    expected = evaluation_of(ROOT / "checkpoints" / "wikitext-2", text.read_text(encoding="utf-8"))
    assert found == pytest.approx(expected.perplexity, rel=0.005)
