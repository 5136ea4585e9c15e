"""From text to an answered request: what training measures, export writes and the service answers is one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.served_model import open_model
from app.settings import Settings
from export import cli as export_cli
from export.exporter import Options, export_bundle
from model.bundle import Bundle, open_bundle
from model.checkpoint import load_checkpoint
from tests.app.serving import serving
from tests.source import ROOT
from training import cli as training_cli
from training.evaluate import evaluate

CHECKPOINT, BUNDLE = ROOT / "checkpoints" / "wikitext-2", ROOT / "bundles" / "wikitext-2"

TEXT = """
The old lighthouse stands on a small island near the mouth of the river . It was built in 1857 by the harbour company ,
which had lost three ships there in the two winters before . The tower is made of local stone and is 31 metres high .

= = Later history = =

In 1924 the lamp was replaced by an electric one , and the last keeper left the island with his family in the summer
of 1963 . The building was then empty for almost twenty @-@ five years . It was sold in 1988 to a group of volunteers ,
who opened a museum in the keeper 's house and have restored the tower with 1 @.@ 2 million dollars of donations .
"""
"""Written for this test, in WikiText's tokens."""


def ignore(stage: str, total: int, done: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundled checkpoint, exported anew in both precisions."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "text.txt").write_text(TEXT)
    options = Options(name="wikitext-2", texts=(folder / "text.txt",), threads=2)
    export_bundle(CHECKPOINT, folder / "bundle", options, ignore)
    return open_bundle(folder / "bundle")


def asked(bundle: Path, precision: str, text: str) -> dict[str, float]:
    """What the service answers to `POST /perplexity`."""
    settings: dict[str, Any] = {"bundle": bundle, "precision": precision}
    with serving(open_model(Settings(**settings)), **settings) as client:
        response = client.post("/perplexity", json={"text": text})
    assert response.status_code == 200, response.text
    answer: dict[str, float] = response.json()["results"][0]
    return answer


def check_against_training(bundle: Bundle, text: str, precision: str, tolerance: float) -> None:
    """The service's figures are those of `python -m training evaluate` on the same text."""
    model, vocabulary, _ = load_checkpoint(CHECKPOINT)
    measured = evaluate(model, vocabulary.encode(text), vocabulary.eos_id)
    answer = asked(bundle.folder, precision, text)
    assert answer["token_count"] == measured.tokens
    assert answer["perplexity"] == pytest.approx(measured.perplexity, rel=tolerance)
    assert answer["log_likelihood"] == pytest.approx(-measured.negative_log_likelihood, rel=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("int8", 4e-3)])
def test_perplexity_over_http_is_what_training_evaluates(exported: Bundle, precision: str, tolerance: float) -> None:
    check_against_training(exported, TEXT, precision, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("int8", 4e-3)])
def test_perplexity_over_http_is_what_training_evaluates_on_wikitext_2(
    exported: Bundle, data_dir: Path, precision: str, tolerance: float
) -> None:
    lines = (data_dir / "wikitext-2" / "valid.txt").read_text(encoding="utf-8").split("\n")[:300]
    check_against_training(exported, "\n".join(lines) + "\n", precision, tolerance)


def run(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> None:
    """Run a command as a person does; it must succeed."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_a_model_with_gates_and_several_softmaxes_answers_what_training_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, checkpoint, bundle = (tmp_path / name for name in ("data", "checkpoint", "bundle"))
    data.mkdir()
    for split, repeats in (("train", 12), ("valid", 1), ("test", 1)):
        (data / f"{split}.txt").write_text(TEXT * repeats)
    sizes = ("embedding_size=16", "hidden_size=24", "layers=3", "mogrifier_rounds=4", "softmaxes=3")
    settings = [argument for size in sizes for argument in ("--set", f"model.{size}")]
    options = ("--preset", "small", "--epochs", 2, "--out", checkpoint, "--convention", "wikitext", "--min-count", 1)
    run(monkeypatch, training_cli.main, "train", "--data", data, *options, *settings)
    text = data / "valid.txt"
    run(monkeypatch, export_cli.main, "--checkpoint", checkpoint, "--out", bundle, "--text", text, "--threads", 1)
    capsys.readouterr()
    run(monkeypatch, training_cli.main, "evaluate", "--checkpoint", checkpoint, "--text", text, "--json")
    expected = json.loads(capsys.readouterr().out)
    model = open_bundle(bundle).manifest.model
    assert (model.mogrifier_rounds, model.softmaxes) == (4, 3)
    for precision, tolerance in (("float32", 1e-4), ("int8", 4e-3)):
        answer = asked(bundle, precision, TEXT)
        assert answer["token_count"] == expected["tokens"]
        assert answer["perplexity"] == pytest.approx(expected["perplexity"], rel=tolerance)


def test_the_bundle_in_the_repository_is_the_checkpoint_in_the_repository(exported: Bundle) -> None:
    kept = open_bundle(BUNDLE)
    assert list(kept.manifest.engines["onnx"]) == ["int8"]
    fresh = {name: sums.sha256 for name, sums in exported.manifest.files.items() if "float32" not in name}
    assert {name: sums.sha256 for name, sums in kept.manifest.files.items()} == fresh


def test_the_bundled_model_knows_english() -> None:
    settings = Settings(bundle=BUNDLE)
    with serving(open_model(settings), bundle=BUNDLE) as client:
        answer = client.post("/predict", json={"text": "He was born in New", "k": 5}).json()
    assert answer["predictions"][0]["word"] == "York"
    assert answer["model"]["precision"] == "int8"


def test_int8_scores_are_the_same_to_the_bit_alone_among_32_others_and_on_one_or_two_threads() -> None:
    words = TEXT.split()
    texts = [" ".join(words[i : i + 3 + i % 17]) for i in range(33)]
    scored = []
    for threads in (1, 2):
        with serving(open_model(Settings(bundle=BUNDLE, threads=threads)), bundle=BUNDLE) as client:
            together = client.post("/perplexity", json={"texts": texts, "return_tokens": True}).json()["results"]
            alone = [
                client.post("/perplexity", json={"text": text, "return_tokens": True}).json()["results"][0]
                for text in texts
            ]
        scored += [together, alone]
    assert len({token["log_probability"] for text in scored[0] for token in text["tokens"]}) > 200
    assert scored[0] == scored[1] == scored[2] == scored[3]
