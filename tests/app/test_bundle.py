"""The service around a real bundle: the model's own numbers, whatever shares the batch, and broken bundles."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from app.cli import main
from app.served_model import open_model
from app.settings import Settings
from model.checkpoint import load_checkpoint
from model.files import sha256_of
from tests.app.bundles import export_small_bundle
from tests.app.fakes import CORPUS
from tests.app.processes import served
from tests.app.serving import PATIENCE, serving, until

SERVE_AND_LIST_MODULES = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps({"event": "modules", "names": sorted(sys.modules)})))
from app.cli import main
main()
"""
TEXTS = [" ".join(CORPUS), *CORPUS, "the sea", "", "Zanzibar", *(f"the {n} boats left" for n in range(20))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_bundle(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def clients(bundle: Path, _default_settings: None) -> Iterator[Callable[..., TestClient]]:
    """Clients of services around the bundle, made when first asked for."""
    with ExitStack() as stack:

        @cache
        def client(precision: str, threads: int = 1) -> TestClient:
            model = open_model(Settings(bundle=bundle, precision=precision, threads=threads))
            return stack.enter_context(serving(model))

        yield client


def torch_log_probabilities(bundle: Path, text: str) -> list[float]:
    """Of each token of a text and its final `<eos>`, by the checkpoint's model in float64."""
    model, vocabulary, _ = load_checkpoint(bundle.parent / "checkpoint")
    model = model.double().eval()
    ids = torch.tensor([vocabulary.eos_id, *vocabulary.tokenise(text).ids.tolist(), vocabulary.eos_id])
    with torch.no_grad():
        hidden, _ = model(ids[None, :-1], model.initial_state(1).double())
        values = model.log_probabilities(hidden)[0]
    return [float(value) for value in values.gather(1, ids[1:, None])[:, 0]]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 2e-2)])
def test_perplexity_over_http_is_the_models_own(
    bundle: Path, clients: Callable[..., TestClient], precision: str, tolerance: float
) -> None:
    text = "\n".join(CORPUS)
    answer = clients(precision).post("/perplexity", json={"text": text, "return_tokens": True}).json()
    expected = torch_log_probabilities(bundle, text)
    tokens = answer["results"][0]["tokens"]
    assert [token["log_probability"] for token in tokens] == pytest.approx(expected, rel=tolerance)
    assert answer["perplexity"] == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=tolerance)
    assert answer["model"]["precision"] == precision


def test_predictions_are_the_best_of_the_models_own(bundle: Path, clients: Callable[..., TestClient]) -> None:
    best = clients("float32").post("/predict", json={"text": "the sea is", "k": 1}).json()["predictions"][0]
    expected = torch_log_probabilities(bundle, f"the sea is {best['word']}")[-2]
    assert best["log_probability"] == pytest.approx(expected, rel=1e-5)


def test_int8_scores_are_equal_to_the_bit_alone_among_others_and_on_any_number_of_threads(
    clients: Callable[..., TestClient],
) -> None:
    ask = {"context": "the harbour", "return_tokens": True}
    one_thread, two_threads = clients("int8", 1), clients("int8", 2)
    together = one_thread.post("/perplexity", json={"texts": TEXTS, **ask}).json()["results"]
    assert together == two_threads.post("/perplexity", json={"texts": TEXTS, **ask}).json()["results"]
    assert together == [
        one_thread.post("/perplexity", json={"text": text, **ask}).json()["results"][0] for text in TEXTS
    ]


def test_the_card_is_the_manifests(bundle: Path, clients: Callable[..., TestClient]) -> None:
    card = clients("int8").get("/model").json()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert card["model"] == {
        "name": "small",
        "sha256": sha256_of(bundle / "manifest.json"),
        "engine": "onnx",
        "precision": "int8",
    }
    assert card["architecture"] == manifest["model"]
    assert card["metrics"] == manifest["metrics"]
    assert card["attribution"] == "the tests"


def break_missing(file: Path) -> None:
    file.unlink()


def break_truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def break_altered(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


FILES = ["tokenizer.json", "onnx/int8/weights.bin", "onnx/float32/head.onnx"]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((name, harm) for name in FILES for harm in (break_missing, break_truncated, break_altered)),
        ("manifest.json", break_missing),
        ("manifest.json", break_truncated),
    ],
)
def test_a_broken_bundle_is_one_line_that_names_the_file_and_status_2(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    harm: Callable[[Path], None],
) -> None:
    broken = shutil.copytree(bundle, tmp_path / "broken")
    harm(broken / name)
    monkeypatch.setenv("PRU_BUNDLE", str(broken))
    for arguments in (["app"], ["app", "predict", "the"]):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {broken}")
        assert name in printed.err
        assert len(printed.err.splitlines()) == 1


def test_the_serving_process_answers_ends_well_and_imports_no_torch(bundle: Path) -> None:
    with served("-c", SERVE_AND_LIST_MODULES, bundle=str(bundle), threads="1") as service:
        service.wait_until_ready()
        [ready] = service.events("ready")
        assert (ready["engine"], ready["precision"]) == ("onnx", "int8")
        assert service.ask("/predict", text="the harbour").status_code == 200
        assert service.ask("/perplexity", text="the harbour").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
        until(lambda: bool(service.events("modules")))
        [modules] = service.events("modules")
    assert "onnxruntime" in modules["names"]
    assert not {"torch", "training", "export"} & set(modules["names"])
