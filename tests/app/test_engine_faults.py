"""Engines that fail: whom a fault reaches over HTTP, what is said of it, and that the next request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from app.engines import choice
from app.engines.base import Floats, Ids
from app.metrics import Metrics
from app.reading import FEW_ROWS, Reading, Result, advance
from app.scheduler import Scheduler
from app.served_model import ServedModel, open_model
from app.settings import Settings
from export.forms import ENGINES
from model import torchscript_model
from model.bundle import Bundle, open_bundle
from model.errors import EngineError, EngineMemoryError
from model.kernels.fused import FusedModel
from tests.app.bundles import export_small_bundle
from tests.app.commands import run
from tests.app.every_engine import EVERY_ENGINE, Build
from tests.app.fakes import LogLines, NumpyEngine, fake_model
from tests.app.serving import serving

TEXT = {"text": "the harbour is small , but the boats"}
WARM = 9
"""Calls of the fake engine while the service warms up: three of each of its lengths."""
FULL = "Failed to allocate memory for requested buffer of size 4294967296"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(export_small_bundle(tmp_path_factory.mktemp("faults"), ENGINES))


@pytest.fixture(params=EVERY_ENGINE)
def model(request: pytest.FixtureRequest, bundle: Bundle) -> ServedModel:
    """The bundle on each engine of this machine."""
    build: Build = request.param
    build(bundle)  # Skips here, rather than while it serves, where the engine cannot run.
    return replace(open_model(Settings(bundle=bundle.folder)), build_engine=lambda: build(bundle))


def memory_is_full(patch: pytest.MonkeyPatch) -> None:
    """The libraries behind the engines find no memory, as each says so."""

    def full(*_: object, **__: object) -> None:
        raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {FULL}\nat arena.cc")

    for name in ("run", "run_with_iobinding"):
        patch.setattr(onnxruntime.InferenceSession, name, full)

    def full_in_torch(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB.")

    for name in ("advance", "log_probabilities"):
        patch.setattr(torchscript_model._Scripted, name, full_in_torch)
    for name in ("_step", "_read"):
        patch.setattr(FusedModel, name, full_in_torch)


def test_a_batch_for_which_there_is_no_memory_fails_alone(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = LogLines()
    with serving(model, logs) as client:
        before = client.post("/perplexity", json=TEXT)
        with monkeypatch.context() as patch:
            memory_is_full(patch)
            failed = client.post("/perplexity", json=TEXT)
        after = client.post("/perplexity", json=TEXT)
    assert failed.status_code == 503
    assert failed.headers["content-type"] == "application/problem+json"
    assert failed.headers["retry-after"] == "1"
    assert "memory" not in failed.text, "what failed is for the log"
    [line] = logs.events("failed")
    assert line["error"] == "EngineMemoryError"
    assert (after.status_code, after.json()) == (200, before.json())


def test_every_answer_names_the_engine(model: ServedModel) -> None:
    engine = model.build_engine()
    logs = LogLines()
    with serving(model, logs) as client:
        identities = [client.get("/model").json()["model"], client.post("/predict", json=TEXT).json()["model"]]
    for identity in [*identities, *logs.events("ready")]:
        assert (identity["engine"], identity["precision"]) == (engine.name, engine.precision)


def damaged(part: str) -> Callable[[int], NumpyEngine]:
    """Builds an engine that gives NaN for a part of what it computes, once it is warm."""

    class Damaged(NumpyEngine):
        broken = False

        def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
            hidden, after = super().advance(ids, lengths, state)
            if self.broken and part == "hidden":
                hidden[-1, -1, 0] = np.nan
            if self.broken and part == "state":
                after[0, 0] = np.inf
            return hidden, after

        def log_probabilities(self, hidden: Floats) -> Floats:
            values = super().log_probabilities(hidden)
            if self.broken and part == "log_probabilities":
                values[-1, 2] = np.nan
            return values

        def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
            values, ranks = super().score(hidden, targets)
            if self.broken and part == "score":
                values[0] = np.nan
            return values, ranks

    return Damaged


@pytest.mark.parametrize(
    ("part", "route", "body"),
    [
        ("hidden", "/predict", TEXT),
        ("state", "/predict", TEXT),
        ("log_probabilities", "/predict", TEXT),
        ("hidden", "/perplexity", TEXT),
        ("log_probabilities", "/perplexity", TEXT),
        ("log_probabilities", "/v1/completions", {"prompt": "the", "max_tokens": 1}),
        ("state", "/sessions", TEXT),
    ],
)
def test_a_nan_is_never_an_answer(part: str, route: str, body: dict[str, object]) -> None:
    engines: list[NumpyEngine] = []

    def build(size: int) -> NumpyEngine:
        engines.append(damaged(part)(size))
        return engines[0]

    logs = LogLines()
    with serving(fake_model(build=build), logs) as client:
        good = client.post(route, json=body)
        [engine] = engines
        engine.broken = True  # type: ignore[attr-defined]
        # Other words: what was read before is remembered.
        other = {key: value if key == "max_tokens" else "Captain Marlow 's boat" for key, value in body.items()}
        bad = client.post(route, json=other)
    assert good.is_success
    assert bad.status_code == 500
    [line] = logs.events("failed")
    assert line["error"] == "EngineError"
    assert line["raised_at"][-1].endswith(" _numbers")


def test_a_nan_among_scores_of_many_rows_is_an_error_and_moves_none_of_them() -> None:
    engine = damaged("score")(30)
    readings = [
        Reading(np.zeros(engine.state_size, np.float32), np.array([1], np.int32), np.array([2], np.int32))
        for _ in range(FEW_ROWS + 1)
    ]
    engine.broken = True  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="NaN or infinity"):
        advance(engine, readings, 1)
    assert {(reading.done, reading.scored) for reading in readings} == {(0, 0)}


@pytest.mark.anyio
@pytest.mark.parametrize("room", [8, 1, 0])
async def test_where_memory_is_too_little_for_a_batch_its_readings_go_on_in_smaller_ones(room: int) -> None:
    sizes: list[int] = []

    class Small(NumpyEngine):
        def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
            sizes.append(len(ids))
            if len(ids) > room and len(sizes) > WARM:
                raise EngineMemoryError("memory is full")
            return super().advance(ids, lengths, state)

    scheduler = Scheduler(lambda: Small(30), Metrics().of_model("tiny"))
    engine = await scheduler.start()
    scheduler._hurried.rows[1] = scheduler._alone.rows[1] = 64.0
    readings = [Reading(np.zeros(engine.state_size, np.float32), np.array([n % 30], np.int32)) for n in range(64)]
    try:
        results = await asyncio.gather(*map(scheduler.read, readings), return_exceptions=True)
    finally:
        scheduler.close()
    taken = sizes[WARM:]
    assert taken[:4] == [64, 32, 16, 8]
    for reading, result in zip(readings, results, strict=True):
        if room:
            assert isinstance(result, Result)
            _, state = engine.advance(
                reading.ids[None], np.ones(1, np.int32), np.zeros((1, engine.state_size), np.float32)
            )
            np.testing.assert_array_equal(result.state, state[0])
        else:
            assert isinstance(result, EngineMemoryError)


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        ("no CUDA device: NVIDIA's driver (libcuda.so.1) was not found", "driver (libcuda.so.1) was not found"),
        ("the driver is for CUDA 11.8 and CUDA 12.8 is needed; update the driver", "update the driver"),
        ("triton is not installed; torch's build for CUDA brings it on Linux", "triton is not installed"),
    ],
)
def test_a_named_engine_that_this_machine_cannot_run_ends_the_program_in_one_line(
    bundle: Bundle, lacks: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended = tuple(
        replace(candidate, lacks=lambda: lacks) if candidate.device == "cuda" else candidate
        for candidate in choice.CANDIDATES
    )
    monkeypatch.setattr(choice, "CANDIDATES", pretended)
    monkeypatch.setenv("PRU_BUNDLE", str(bundle.folder))
    monkeypatch.setenv("PRU_ENGINE", "onnx-cuda")
    assert run(monkeypatch, "predict", "the") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    monkeypatch.setenv("PRU_ENGINE", "auto")
    assert run(monkeypatch, "predict", "the") == 0


def test_an_artefact_of_another_model_is_refused_whatever_runs_it(bundle: Bundle, tmp_path: Path) -> None:
    larger = bundle.manifest.model.model_copy(update={"hidden_size": 52})
    other = Bundle(bundle.folder, bundle.manifest.model_copy(update={"model": larger}), bundle.sha256)
    for precision in ("int8", "float32"):
        with pytest.raises(
            EngineError, match=f"the onnx artefact in {precision} is of another model; export the bundle"
        ):
            choice.load_engine(other, precision, engine="onnx")
