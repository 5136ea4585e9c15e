"""The README's examples, run as they stand against the bundled model.

Commands in `bash` blocks run in a shell from the project's root; where a `json` block follows, it must be part of the
answer. What sets up an environment (`make`) is left to the machine that runs this test.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import ADDRESS, assert_part_of, blocks_of, free_port, serving, start_server
from tests.source import ROOT
from training.presets import find_preset
from training.settings import with_settings


def blocks(document: str = "README.md") -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return [(block.language, block.content) for block in blocks_of(ROOT / document)]


def examples(word: str, document: str = "README.md") -> list[tuple[str, str | None]]:
    """Commands that hold `word`, each with the JSON block that follows it."""
    found = [*blocks(document), ("", "")]
    return [
        (content, after if kind == "json" else None)
        for (language, content), (kind, after) in itertools.pairwise(found)
        if language == "bash" and word in content
    ]


def shell(command: str, folder: Path = ROOT, **changes: str) -> str:
    """Standard output of a command, which must succeed."""
    command = re.sub(r"(\.venv/bin/|^)pru ", f"{sys.executable} -m pru ", command, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | changes,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server started as the README says, on a free port."""
    with serving() as place:
        yield f"http://{place}"


@pytest.mark.parametrize(("command", "expected"), examples("curl"))
def test_requests_get_the_answers_that_the_readme_shows(server: str, command: str, expected: str | None) -> None:
    assert expected is not None
    answer = json.loads(shell(command.replace(f"http://{ADDRESS}", server)))
    assert_part_of(json.loads(expected), answer)


def test_the_example_in_python_runs_as_it_stands(server: str) -> None:
    [program] = [content for language, content in blocks() if language == "python"]
    done = subprocess.run(
        [sys.executable, "-c", program.replace(f"http://{ADDRESS}", server)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3


@pytest.mark.parametrize(("command", "_"), examples("pru predict"))
def test_terminal_commands_run(command: str, _: None) -> None:
    printed = shell(command)
    assert "States" in printed
    words = [line.split("\t")[2] for line in printed.splitlines() if line.count("\t") > 2]
    assert words == ["word", "It", "was", "raining", "when", "we", "left."]


def test_three_commands_lead_from_own_text_to_an_endpoint(tmp_path: Path) -> None:
    """The README's own three, with a small text and one epoch."""
    [(command, _)] = examples("pru train --data my-text.txt")
    lines = ["The cat sat on the mat.", "The dog ran after the cat, and the cat ran away.", "It rained all day."]
    (tmp_path / "my-text.txt").write_text("\n".join(lines * 60) + "\n")
    train, export, serve = command.strip().splitlines()
    shell(f"{train} --epochs 1", tmp_path)
    shell(export, tmp_path)
    bundle = re.match(r"\.venv/bin/pru serve --bundle (\S+)$", serve)
    assert bundle
    port = free_port()
    process = start_server(port, PRU_BUNDLE=str(tmp_path / bundle[1]))
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            data=json.dumps({"text": "the cat sat on the", "k": 1}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    finally:
        process.terminate()
        process.wait(30)
    assert answer["predictions"][0]["word"] in re.findall(r"\w+|[.,]", " ".join(lines))
    assert answer["model"]["name"] == "mine"
    assert answer["token_count"] == 5


def test_the_papers_models_are_trained_evaluated_reported_and_analysed(tmp_path: Path) -> None:
    """The commands of the page on training, with small models, a small text and one epoch."""
    [(command, _)] = examples("--preset awd-pru-g4", "docs/own-text.md")
    (tmp_path / "ptb").mkdir()
    for split, times in (("train", 40), ("valid", 4), ("test", 2)):
        (tmp_path / "ptb" / f"{split}.txt").write_text("the cat sat on the mat and looked at the old dog\n" * times)
    for line in command.strip().splitlines():
        small = " --epochs 1 --set model.hidden_size=16 --set model.embedding_size=8" if "pru train" in line else ""
        shell(line.replace("--data ptb", "--data ./ptb") + small, tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"results/RESULTS.md", "results/learning_curves.png", "analysis/entropy.png"} <= written
    results = (tmp_path / "results" / "RESULTS.md").read_text()
    assert "awd-pru-g4-finetuned" in results
    assert "Dynamic evaluation" in results


def test_the_settings_that_pages_change_are_accepted() -> None:
    changes = re.findall(r"--set (\S+=[^\s`]+)", (ROOT / "docs" / "own-text.md").read_text())
    assert len(changes) >= 3
    preset = find_preset("pru-g4")
    architecture, recipe = with_settings(preset.architecture, preset.recipe, changes)
    assert (architecture["softmaxes"], recipe.past_decode) == (10, 0.001)


def test_every_command_and_route_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", text)) <= set(targets)
    assert shutil.which("curl"), "the README's examples use curl"
    from pru.cli import COMMANDS

    assert set(re.findall(r"\bpru ([a-z]+)\b", text)) <= COMMANDS.keys() | {"import"}
    assert [target for target in re.findall(r"\]\(([^)]+)\)", text) if not (ROOT / target).exists()] == []


def figures() -> dict[str, str]:
    """What the records of the bundled model say, as the README writes it."""
    checkpoint, bundle = ROOT / "checkpoints" / "wikitext-2", ROOT / "bundles" / "wikitext-2"
    record = json.loads((checkpoint / "training.json").read_text())
    manifest = json.loads((bundle / "manifest.json").read_text())
    [int8] = manifest["metrics"]
    return {
        "validation": f"{record['perplexity']['valid']:.2f}",
        "test": f"{record['perplexity']['test']:.2f}",
        "validation in int8": f"{int8['perplexity']:.2f}",
        "cost of int8": f"{manifest['engines']['onnx']['int8']['validated'][0]['cost']:.3%}",
        "parameters": f"{record['parameters'] / 1e6:.1f} M parameters",
        "epochs": f"{record['recipe']['epochs']} epochs",
        "minutes": f"{record['seconds'] / 60:.0f} minutes",
        "size of the checkpoint": f"{size(checkpoint):.1f} MB",
        "size of the bundle": f"{size(bundle):.1f} MB",
    }


def size(folder: Path) -> float:
    """Megabytes of a folder's files, the card left out."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".md") / 1e6


def compared() -> dict[str, str]:
    """What the records of benchmarks say of the bundled model and its peers, as the README writes it."""
    results = ROOT / "benchmarks" / "results"
    saved = {
        (run["text"], run["model"]): run for run in json.loads((results / "keystrokes.json").read_text())["results"]
    }
    ours, n_gram = "the bundled model, int8", "modified Kneser-Ney 5-gram"
    texts = ("wikitext-2 test", "ptb valid")
    keys = {f"keys of {key}": f"{run['saved_percent']:.1f}%" for key, run in saved.items()}
    tables = json.loads((results / "cpu.json").read_text())["tables"]
    rows = [row["figures"] for rows in tables.values() for row in rows]
    [torch] = [row["figures"] for row in tables["bundled model"] if row["name"].endswith("torch eager / int8")]
    [gpt2] = [figures for figures in rows if figures.startswith("gpt2")]
    return keys | {
        "keys on WikiText-2": " | ".join(f"{saved[texts[0], model]['saved_percent']:.1f}%" for model in (ours, n_gram)),
        "perplexity": f"{saved[texts[0], ours]['perplexity']:.1f}",
        "perplexity of the 5-gram": f"{saved[texts[0], n_gram]['perplexity']:.1f}",
        **{f"{name} of a step": f"{time} ms" for name, time in re.findall(r"(\w+) ([\d.]+) ms", torch)},
        "step of GPT-2": re.findall(r"gpt2 ([\d.]+ ms)", gpt2)[0],
    }


def test_the_readmes_comparisons_are_those_of_the_records() -> None:
    text = (ROOT / "README.md").read_text().replace("*", "")
    assert [name for name, figure in compared().items() if figure not in text] == []


@pytest.mark.parametrize("document", ["README.md", "checkpoints/wikitext-2/MODEL_CARD.md"])
def test_the_bundled_models_figures_are_those_of_its_records(document: str) -> None:
    text = (ROOT / document).read_text()
    assert [name for name, figure in figures().items() if figure not in text] == []


def test_the_model_card_holds_the_recorded_curve() -> None:
    card = (ROOT / "checkpoints" / "wikitext-2" / "MODEL_CARD.md").read_text()
    record = json.loads((ROOT / "checkpoints" / "wikitext-2" / "training.json").read_text())
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.MULTILINE)
    curve = [
        (str(point["epoch"]), f"{point['train_perplexity']:.2f}", f"{point['valid_perplexity']:.2f}")
        for point in record["curve"]
    ]
    assert rows == curve


def test_the_bundled_model_is_good_and_small_enough_to_be_bundled() -> None:
    record = json.loads((ROOT / "checkpoints" / "wikitext-2" / "training.json").read_text())
    assert record["perplexity"]["valid"] <= 100
    assert size(ROOT / "checkpoints" / "wikitext-2") + size(ROOT / "bundles" / "wikitext-2") <= 100
    assert float(figures()["cost of int8"].rstrip("%")) <= 0.2
