"""Whether a precision's graphs are the model: names, shapes and values against the reference, and what they cost.

Boundary: a loaded `OnnxModel` and the torch model in, numbers or an `ExportError` out. Reads and writes no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from export.quantize import Precision
from model.arguments import Floats, Ids
from model.config import ModelConfig
from model.errors import ExportError
from model.language_model import LanguageModel
from model.onnx_model import HEAD, OnnxModel, steps_name

CHUNK_TOKENS = 256
"""Tokens of a text read at a time: 256 rows of 33,278 log-probabilities are 34 MB."""
VALUE_LIMITS = {Precision.FLOAT32: 1e-4, Precision.INT8: 0.08}
"""Largest relative difference of values. For int8 this finds a wrong graph; its quality, the perplexity says.

A model trained on WikiText-2 was found at 3.4%, one with random weights at 6.7%, and a graph with one weight out of
place at 10% and more.
"""
FLOAT32_LIMIT = 1e-4
"""Largest relative change of perplexity in float32."""
ROW_LENGTHS = (32, 0, 1, 17, 31, 4)
"""Lengths of the rows that are compared value by value: whole, empty and ragged."""


Signature = tuple[list[int | str], str]
"""Shape (a name for an axis of any length) and type of a graph's input or output."""

Pair = tuple[Floats, Floats]
"""Values found and expected."""


@dataclass(frozen=True)
class Differences:
    """How far values are from the reference: root mean square of the difference, over the reference's spread."""

    hidden: float
    state: float
    log_probabilities: float


@dataclass(frozen=True)
class Measured:
    """What one precision was found to do."""

    differences: Differences
    perplexity: float
    reference_perplexity: float

    @property
    def cost(self) -> float:
        """Relative change of perplexity: 0.002 is 0.2% worse than the reference."""
        return self.perplexity / self.reference_perplexity - 1

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "cost": self.cost}


class Reader(Protocol):
    """Reads a text piece by piece."""

    def read(self, ids: Ids, targets: Ids) -> Floats:
        """Read `ids [T]` where the last call stopped; the log-probability of each of `targets [T]` after its id."""


class TorchReader:
    """The reference model as a reader of one text."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._state = model.initial_state(1)

    @torch.inference_mode()
    def read(self, ids: Ids, targets: Ids) -> Floats:
        """As `Reader.read`."""
        hidden, self._state = self._model(torch.from_numpy(ids).long()[None], self._state)
        likely = self._model.log_probabilities(hidden[0])
        values: Floats = likely.gather(1, torch.from_numpy(targets).long()[:, None])[:, 0].numpy()
        return values


class OnnxReader:
    """An exported model as a reader of one text."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._state: Floats = np.zeros((1, model.state_size), np.float32)

    def read(self, ids: Ids, targets: Ids) -> Floats:
        """As `Reader.read`."""
        hidden, self._state = self._model.advance(ids[None], np.array([len(ids)], np.int32), self._state)
        return self._model.score(hidden[0], targets)[0]


def perplexity(reader: Reader, ids: Ids, eos_id: int, advance: Callable[[int], None]) -> float:
    """Perplexity of `ids [n >= 1]` read as one stream from the initial `<eos>`; `advance` is told of tokens done."""
    stream = np.concatenate([np.array([eos_id], np.int32), ids])
    total = 0.0
    for start in range(0, len(ids), CHUNK_TOKENS):
        targets = ids[start : start + CHUNK_TOKENS]
        total -= float(reader.read(stream[start : start + len(targets)], targets).sum(dtype=np.float64))
        advance(len(targets))
    try:
        return math.exp(total / len(ids))
    except OverflowError:
        raise ExportError(
            "the model gives this text no finite perplexity; train it further, or give its own text"
        ) from None


def check_signatures(model: OnnxModel, config: ModelConfig) -> None:
    """Check names, types and shapes of every graph; `ExportError` names the graph that is wrong."""
    floats, integers = "tensor(float)", "tensor(int32)"
    state: Signature = (["batch", config.state_size], floats)
    expected: dict[tuple[str, str], dict[str, Signature]] = {
        (HEAD, "in"): {"hidden": (["rows", config.embedding_size], floats)},
        (HEAD, "out"): {"log_probabilities": (["rows", config.vocabulary_size], floats)},
    }
    for length in model.step_lengths:
        ragged: dict[str, Signature] = {"lengths": (["batch"], integers)} if length > 1 else {}
        expected[steps_name(length), "in"] = {"ids": (["batch", length], integers), **ragged, "state": state}
        expected[steps_name(length), "out"] = {
            "hidden": (["batch", length, config.embedding_size], floats),
            "state_after": state,
        }
    for (name, side), values in expected.items():
        session = model.sessions[name]
        found = {v.name: (v.shape, v.type) for v in (session.get_inputs() if side == "in" else session.get_outputs())}
        if found != values:
            raise ExportError(f"{name} has {side}puts {found} instead of {values}; this is a fault of the export")


def check_values(model: OnnxModel, precision: Precision, reference: LanguageModel, ids: Ids) -> Differences:
    """Compare every graph with the reference on rows of a text, whole, ragged and empty, from a state amid the text.

    Int8 rows must also be the same to the bit alone and one token at a time. Raises `ExportError`.
    """
    lengths = np.array(ROW_LENGTHS, np.int32)
    width = max(ROW_LENGTHS)
    rows = np.resize(ids, (len(lengths), width))
    state = _reference_state(reference, np.resize(ids, len(lengths) * 8).reshape(len(lengths), 8))
    hiddens: list[Pair] = []
    states: list[Pair] = []
    for length in model.step_lengths:
        read = np.minimum(lengths, length)
        hidden, after = model.advance(rows[:, :length], read, state)
        for row, count in enumerate(read):
            expected, expected_state = _advance(reference, rows[row : row + 1, :count], state[row : row + 1])
            hiddens.append((hidden[row, :count], expected[0]))
            states.append((after[row], expected_state[0]))
            if precision is Precision.INT8:
                _check_exact(model, rows[row, :count], state[row : row + 1], hidden[row, :count], after[row])
    last = hiddens[0][1]
    with torch.inference_mode():
        likely = reference.log_probabilities(torch.from_numpy(last)).numpy()
    found = Differences(
        _difference(hiddens), _difference(states), _difference([(model.log_probabilities(last), likely)])
    )
    for name, value in asdict(found).items():
        if not value <= VALUE_LIMITS[precision]:  # A NaN is refused too.
            coarse = "; if the model is hardly trained, train it further or export float32 alone"
            raise ExportError(
                f"{precision}: {name} differs from the reference by {value:.2%} of its spread, more than the "
                f"{VALUE_LIMITS[precision]:.2%} that a correct export may cause on a sound ONNX Runtime"
                f"{coarse if precision is Precision.INT8 else ''}"
            )
    return found


def check_cost(measured: Measured, precision: Precision, max_cost: float) -> None:
    """Refuse a precision whose perplexity is too far from the reference's."""
    if precision is Precision.FLOAT32 and abs(measured.cost) > FLOAT32_LIMIT:
        raise ExportError(
            f"float32 changes perplexity by {measured.cost:+.4%}, more than {FLOAT32_LIMIT:.4%}; "
            "this is a fault of the export or of this ONNX Runtime"
        )
    if precision is Precision.INT8 and measured.cost > max_cost:
        raise ExportError(
            f"{precision} costs {measured.cost:.3%} of perplexity, more than {max_cost:.3%}; "
            "export float32 alone, or allow more with --max-cost"
        )


def _check_exact(model: OnnxModel, ids: Ids, state: Floats, hidden: Floats, after: Floats) -> None:
    one = np.ones(1, np.int32)
    for t, word in enumerate(ids):
        alone, state = model.advance(np.array([[word]], np.int32), one, state)
        if not np.array_equal(alone[0, 0], hidden[t]):
            raise ExportError(
                "int8 results depend on the batch or on how time is cut; this ONNX Runtime cannot be used"
            )
    if not np.array_equal(state[0], after):
        raise ExportError("int8 states depend on the batch or on how time is cut; this ONNX Runtime cannot be used")


@torch.inference_mode()
def _advance(reference: LanguageModel, ids: Ids, state: Floats) -> tuple[Floats, Floats]:
    if not ids.shape[1]:
        return np.empty((len(ids), 0, reference.config.embedding_size), np.float32), state
    hidden, after = reference(torch.from_numpy(ids).long(), torch.from_numpy(state))
    return hidden.numpy(), after.numpy()


def _reference_state(reference: LanguageModel, ids: Ids) -> Floats:
    return _advance(reference, ids, np.zeros((len(ids), reference.config.state_size), np.float32))[1]


def _difference(pairs: Sequence[Pair]) -> float:
    """Of all values found and expected, as `Differences` has it."""
    found, expected = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))
    return float(np.sqrt(np.mean((found - expected) ** 2)) / max(expected.std(), np.finfo(np.float32).tiny))
