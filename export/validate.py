"""Whether what was exported is the model: names, shapes and values against the reference, and what it costs.

Boundary: a loaded model of any engine and the torch model in, numbers or an `ExportError` out. No files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch

from model.arguments import Floats, Ids
from model.config import ModelConfig
from model.errors import ExportError
from model.language_model import LanguageModel
from model.onnx_model import HEAD, OnnxModel, steps_name

CHUNK_TOKENS = 256
"""Tokens of a text read at a time: 256 rows of 33,278 log-probabilities are 34 MB."""
ROW_LENGTHS = (32, 0, 1, 17, 31, 4)
"""Lengths of the rows that are compared value by value: whole, empty and ragged."""
LIKELIEST = 10
"""Words of a hidden vector that are looked at in all ways."""


Signature = tuple[list[int | str], str]
"""Shape (a name for an axis of any length) and type of a graph's input or output."""

Pair = tuple[Floats, Floats]
"""Values found and expected."""


class Exported(Protocol):
    """A loaded model of any engine, as `app.engines.base` describes it."""

    @property
    def state_size(self) -> int:
        """S, the floats of a state row."""

    @property
    def step_lengths(self) -> list[int]:
        """Steps that one call takes at its best, 1 among them."""

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read `lengths [B]` ids of each row of `ids [B, T]` from `state [B, S]`; hidden `[B, T, E]` and the state."""

    def log_probabilities(self, hidden: Floats) -> Floats:
        """Of every word `[N, V]` after `hidden [N, E]`."""

    def top_k(self, hidden: Floats, k: int) -> tuple[Ids, Floats]:
        """Ids and log-probabilities `[N, k]` of the likeliest words, best first, ties by lower id."""

    def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
        """Log-probabilities and ranks of `targets [N]`."""


@dataclass(frozen=True)
class Limits:
    """How far an artefact may be from the reference."""

    values: float
    """Largest relative difference of values (`Differences`)."""
    cost: float | None = None
    """Largest relative change of perplexity, up or down; without it, whoever exports says how much worse it may be."""
    exact: bool = False
    """Whether results must be the same to the bit alone, in any batch, and however time is cut."""


@dataclass(frozen=True)
class Differences:
    """How far values are from the reference: root mean square of the difference, over the reference's spread."""

    hidden: float
    state: float
    log_probabilities: float


@dataclass(frozen=True)
class Measured:
    """What one artefact was found to do."""

    differences: Differences
    perplexity: float
    reference_perplexity: float

    @property
    def cost(self) -> float:
        """Relative change of perplexity: 0.002 is 0.2% worse than the reference."""
        return self.perplexity / self.reference_perplexity - 1


class Reader(Protocol):
    """Reads a text piece by piece."""

    def read(self, ids: Ids, targets: Ids) -> Floats:
        """Read `ids [T]` where the last call stopped; the log-probability of each of `targets [T]` after its id."""


class ReferenceReader:
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


class ExportedReader:
    """An exported model as a reader of one text."""

    def __init__(self, model: Exported) -> None:
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


def check_values(model: Exported, name: str, limits: Limits, reference: LanguageModel, ids: Ids) -> Differences:
    """Compare an artefact with the reference on rows of a text, whole, ragged and empty, from a state amid the text.

    An exact one must also give the same to the bit alone and one token at a time, and of any, all that is said of a
    hidden vector's words must agree to the bit. Raises `ExportError`, which calls the artefact `name`.
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
            if limits.exact:
                _check_exact(model, name, rows[row, :count], state[row : row + 1], hidden[row, :count], after[row])
    last = hiddens[0][1]
    with torch.inference_mode():
        expected_likely = reference.log_probabilities(torch.from_numpy(last)).numpy()
    likely = model.log_probabilities(last)
    found = Differences(_difference(hiddens), _difference(states), _difference([(likely, expected_likely)]))
    for what, value in asdict(found).items():
        if not value <= limits.values:  # A NaN is refused too.
            coarse = "; if the model is hardly trained, train it further or leave this precision out"
            raise ExportError(
                f"{name}: {what} differs from the reference by {value:.2%} of its spread, more than the "
                f"{limits.values:.2%} that a correct export may cause on a sound runtime"
                f"{coarse if limits.cost is None else ''}"
            )
    _check_words(model, name, last, likely)
    return found


def check_cost(measured: Measured, name: str, limits: Limits, max_cost: float) -> None:
    """Refuse an artefact whose perplexity is too far from the reference's."""
    if limits.cost is not None and abs(measured.cost) > limits.cost:
        raise ExportError(
            f"{name} changes perplexity by {measured.cost:+.4%}, more than {limits.cost:.4%}; "
            "this is a fault of the export or of this runtime"
        )
    if limits.cost is None and measured.cost > max_cost:
        raise ExportError(
            f"{name} costs {measured.cost:.3%} of perplexity, more than {max_cost:.3%}; "
            "leave this precision out, or allow more with --max-cost"
        )


def _check_words(model: Exported, name: str, hidden: Floats, likely: Floats) -> None:
    """The likeliest words, and every row's last of them as a target, against all log-probabilities."""
    best = np.argsort(-likely, axis=1, kind="stable")[:, :LIKELIEST].astype(np.int32)
    values = np.take_along_axis(likely, best, axis=1)
    ranks = 1 + (likely > values[:, -1:]).sum(axis=1)
    found, scored = model.top_k(hidden, LIKELIEST), model.score(hidden, best[:, -1].copy())
    expected = (best, values, values[:, -1], ranks)
    if not all(map(np.array_equal, (*found, *scored), expected)):
        raise ExportError(f"{name}: its likeliest words, scores or ranks are not those of its log-probabilities")


def _check_exact(model: Exported, name: str, ids: Ids, state: Floats, hidden: Floats, after: Floats) -> None:
    one = np.ones(1, np.int32)
    for t, word in enumerate(ids):
        alone, state = model.advance(np.array([[word]], np.int32), one, state)
        if not np.array_equal(alone[0, 0], hidden[t]):
            raise ExportError(f"{name}: results depend on the batch or on how time is cut; this runtime cannot be used")
    if not np.array_equal(state[0], after):
        raise ExportError(f"{name}: states depend on the batch or on how time is cut; this runtime cannot be used")


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
