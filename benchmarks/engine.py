"""The ONNX engine against torch, against float32 and against itself; TorchScript against torch.

Boundary: one exported model at a time, no HTTP.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Row, at_least, at_most, interleaved, milliseconds
from export.graphs import write_graphs
from export.quantize import Precision, arithmetic_of
from export.torchscript import write_torchscript
from export.weights import fold_model
from model.checkpoint import load_checkpoint, load_weights
from model.language_model import LanguageModel
from model.onnx_model import OnnxModel
from model.pru import PRUCell, PRULayer, unpack
from model.torchscript_model import TorchScriptModel

THREADS = 2


def rows(checkpoint: Path, folder: Path, rounds: int) -> list[Row]:
    """Every comparison for one model, whose graphs are written into `folder`.

    They are not validated as an export's are: weights without training need not survive int8, and are as fast.
    """
    torch.set_num_threads(THREADS)
    model, _, _ = load_checkpoint(checkpoint)
    folded = fold_model(model.config, load_weights(checkpoint))
    engines = {
        precision.value: OnnxModel(
            write_graphs(folded, arithmetic_of(precision, folded.table), folder / precision), THREADS
        )
        for precision in Precision
    }
    return [
        *_steps(engines["int8"], model, rounds),
        *_scoring(engines, model, rounds),
        _flatness(engines["int8"], rounds),
        *_torchscript(TorchScriptModel(write_torchscript(model, folder / "torchscript")), model, rounds),
    ]


def _steps(engine: OnnxModel, model: LanguageModel, rounds: int) -> list[Row]:
    ids = np.random.default_rng(1).integers(engine.vocabulary_size, size=(1, 32), dtype=np.int32)
    zeros = np.zeros((1, engine.state_size), np.float32)
    one, many = (torch.from_numpy(ids[:, :length].astype(np.int64)) for length in (1, 32))
    state = torch.from_numpy(zeros)

    def read(length: int) -> None:
        hidden, _ = engine.advance(ids[:, :length], np.array([length], np.int32), zeros)
        engine.top_k(hidden[:, -1], 5)

    def read_in_torch(tokens: Tensor) -> None:
        with torch.inference_mode():
            hidden, _ = model(tokens, state)
            model.log_probabilities(hidden[:, -1]).topk(5)

    times = interleaved(
        {
            "int8": lambda: read(1),
            "torch": lambda: read_in_torch(one),
            "int8 32": lambda: read(32),
            "torch 32": lambda: read_in_torch(many),
        },
        rounds,
    )
    return [
        at_least(
            "one token read, top 5 predicted, batch 1: torch eager / int8",
            milliseconds(torch=times["torch"], int8=times["int8"]),
            times["torch"] / times["int8"],
            5,
        ),
        at_most(
            "32 tokens read, top 5 predicted: against 1 token",
            milliseconds(of_32=times["int8 32"], of_1=times["int8"]),
            times["int8 32"] / times["int8"],
            5,
        ),
    ]


def _scoring(engines: dict[str, OnnxModel], model: LanguageModel, rounds: int) -> list[Row]:
    """Every token of 32 texts of 32 tokens scored; the released code reads them in a Python loop over steps."""
    vocabulary_size = engines["int8"].vocabulary_size
    ids = np.random.default_rng(2).integers(vocabulary_size, size=(32, 33), dtype=np.int32)

    def score(engine: OnnxModel, batch: int) -> None:
        zeros = np.zeros((batch, engine.state_size), np.float32)
        hidden, _ = engine.advance(ids[:batch, :-1], np.full(batch, 32, np.int32), zeros)
        engine.score(hidden.reshape(-1, hidden.shape[-1]), ids[:batch, 1:].reshape(-1))

    @torch.inference_mode()
    def score_step_by_step(batch: int) -> None:
        tokens = torch.from_numpy(ids[:batch].astype(np.int64))
        states = unpack(model.initial_state(batch), model.config)
        layers = [layer for layer in model.layers if isinstance(layer, PRULayer)]
        outputs = []
        for t in range(32):
            x = model.embedding(tokens[:, t])
            for index, layer in enumerate(layers):
                states[index] = PRUCell.forward(layer, x, states[index])
                x = states[index][0]
            outputs.append(x)
        likely = model.log_probabilities(torch.stack(outputs, dim=1))
        likely.gather(-1, tokens[:, 1:, None])

    times = interleaved(
        {
            "int8": lambda: score(engines["int8"], 32),
            "float32": lambda: score(engines["float32"], 32),
            "loop": lambda: score_step_by_step(32),
            "int8 alone": lambda: score(engines["int8"], 1),
            "loop alone": lambda: score_step_by_step(1),
        },
        rounds,
    )
    speed = f" ({32 * 32 / times['int8']:,.0f} tokens/s)"
    return [
        at_least(
            "32 x 32 tokens scored: float32 / int8",
            milliseconds(float32=times["float32"], int8=times["int8"]) + speed,
            times["float32"] / times["int8"],
            1.7,
        ),
        at_least(
            "32 x 32 tokens scored: Python loop over steps / int8",
            milliseconds(loop=times["loop"], int8=times["int8"]),
            times["loop"] / times["int8"],
            3,
        ),
        at_least(
            "1 x 32 tokens scored: Python loop over steps / int8",
            milliseconds(loop=times["loop alone"], int8=times["int8 alone"]),
            times["loop alone"] / times["int8 alone"],
            10,
        ),
    ]


def _torchscript(engine: TorchScriptModel, model: LanguageModel, rounds: int) -> list[Row]:
    """The same model as TorchScript, behind the engines' protocol, and as modules."""
    ids = np.random.default_rng(4).integers(engine.vocabulary_size, size=(32, 33), dtype=np.int32)

    def read() -> None:
        zeros = np.zeros((1, engine.state_size), np.float32)
        hidden, _ = engine.advance(ids[:1, :1], np.ones(1, np.int32), zeros)
        engine.top_k(hidden[:, -1], 5)

    @torch.inference_mode()
    def read_in_torch() -> None:
        hidden, _ = model(torch.from_numpy(ids[:1, :1]), model.initial_state(1))
        model.log_probabilities(hidden[:, -1]).topk(5)

    def score() -> None:
        zeros = np.zeros((32, engine.state_size), np.float32)
        hidden, _ = engine.advance(ids[:, :-1], np.full(32, 32, np.int32), zeros)
        engine.score(hidden.reshape(-1, hidden.shape[-1]), ids[:, 1:].reshape(-1))

    @torch.inference_mode()
    def score_in_torch() -> None:
        hidden, _ = model(torch.from_numpy(ids[:, :-1]), model.initial_state(32))
        targets = torch.from_numpy(ids[:, 1:]).long()
        model.log_probabilities(hidden).gather(-1, targets.unsqueeze(-1))

    times = interleaved(
        {"one": read, "one in torch": read_in_torch, "many": score, "many in torch": score_in_torch}, rounds
    )
    return [
        at_most(
            "one token read, top 5 predicted, batch 1: TorchScript / torch eager",
            milliseconds(TorchScript=times["one"], torch=times["one in torch"]),
            times["one"] / times["one in torch"],
            1.3,
        ),
        at_most(
            "32 x 32 tokens scored: TorchScript / torch eager",
            milliseconds(TorchScript=times["many"], torch=times["many in torch"]),
            times["many"] / times["many in torch"],
            1.3,
        ),
    ]


def _flatness(engine: OnnxModel, rounds: int) -> Row:
    """A step costs the same however much was read before it."""
    generator = np.random.default_rng(3)
    one = np.ones(1, np.int32)

    def state_after(length: int) -> np.ndarray:
        ids = generator.integers(engine.vocabulary_size, size=(1, length), dtype=np.int32)
        zeros = np.zeros((1, engine.state_size), np.float32)
        return engine.advance(ids, np.array([length], np.int32), zeros)[1]

    states = {length: state_after(length) for length in (10, 100, 1_000, 10_000)}
    times = interleaved(
        {
            str(length): lambda state=state: engine.advance(np.zeros((1, 1), np.int32), one, state)  # type: ignore[misc]
            for length, state in states.items()
        },
        rounds,
    )
    return at_most(
        "a step after 10, 100, 1,000 and 10,000 tokens: slowest / fastest",
        milliseconds(**{f"after_{length}": seconds for length, seconds in times.items()}),
        max(times.values()) / min(times.values()),
        1.1,
    )
