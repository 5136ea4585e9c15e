"""A packed model on a device: word ids and state in, hidden vectors, state and log-probabilities out.

Boundary: torch tensors on the model's device; ids, lengths and targets may also lie on the CPU. What does not fit the
model is refused above, by `model.torch_model`. On a GPU the fused kernels compute it, and a step of few rows is one
replayed CUDA graph; on a CPU the plain references do, so that values can be compared on any machine. Serves one caller
at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from model.errors import EngineError, EngineMemoryError
from model.kernels.forms import Forms, forms_for
from model.kernels.reference import wide
from model.kernels.weights import FusedWeights, LayerWeights, name_of

MAX_TOKENS = 1 << 15
"""Tokens (rows x steps) read at once: bounds the memory, whose largest part is `4M` floats a token."""
GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batches that a step's graph is captured for, when first needed; others are padded up, larger ones run without."""

CAPABILITY = (8, 0)
"""The first GPUs that multiply bfloat16, and that Triton supports."""

P = ParamSpec("P")
R = TypeVar("R")


class Layer(NamedTuple):
    """A layer on a device: `weight [N, 4, M]`, `bias [4, M]`, `context [g, m, 4, m]`, and both packed for a step."""

    weight: Tensor
    bias: Tensor
    context: Tensor
    packed: tuple[Tensor, ...]

    def from_input(self, x: Tensor) -> Tensor:
        """The input's part of Eq. 5 for all steps, `x [B, T, N]` to `[B, T, 4, M]`, in float32."""
        flat, matrix = x.flatten(0, 1).to(self.weight.dtype), self.weight.flatten(1)
        if flat.is_cuda and flat.dtype != torch.float32:
            pre = torch.mm(flat, matrix, out_dtype=torch.float32)
        else:
            pre = wide(flat) @ wide(matrix)
        return pre.add_(self.bias.flatten()).view(*x.shape[:2], *self.bias.shape)


def place(layer: LayerWeights, device: torch.device, forms: Forms) -> Layer:
    """Put a layer on a device, laid out for the functions that compute it."""
    weight, bias, context = (part.contiguous().to(device) for part in layer)
    return Layer(weight, bias, context, forms.pack(weight, context))


def _guarded(
    function: Callable[Concatenate[FusedModel, P], R],
) -> Callable[Concatenate[FusedModel, P], R]:
    """No gradients, and an `EngineError` for what fails: without memory for one batch, the next one still works."""

    @wraps(function)
    def guarded(self: FusedModel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with (
                torch.inference_mode(),
                torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext(),
            ):
                return function(self, *args, **kwargs)
        except torch.OutOfMemoryError:
            pass  # The tensors of the failed call are let go with the exception.
        except EngineError:
            raise
        except Exception as error:  # Triton's exceptions and torch's share no base but Exception.
            raise EngineError(
                f"{self.device} failed while running the model: {str(error).partition(chr(10))[0]}"
            ) from error
        torch.cuda.empty_cache()
        raise EngineMemoryError(
            f"{self.device} has too little memory for this batch; send fewer or shorter texts at once"
        )

    return guarded


class FusedModel:
    """A model that advances packed state rows `[h1, c1, h2, c2, ...]`, which are float32.

    Log-probabilities are equal to the bit between `log_probabilities`, `top_k` and `score` of the same `hidden`.
    """

    def __init__(self, weights: FusedWeights, device: torch.device, forms: Forms | None = None) -> None:
        """Put the weights on `device`; `forms` compute it, by default those that fit the device.

        Raises `EngineError` where there is no such device, it is too old (`CAPABILITY`), or Triton is missing.
        """
        _check_device(device)
        self.device = device
        self.precision = name_of(weights.dtype)
        self.vocabulary_size, self.hidden_size = weights.table.shape
        self._forms = forms or forms_for(device)
        self._sizes = [size for layer in weights.layers for size in (layer.bias.shape[1],) * 2]
        self.state_size = sum(self._sizes)
        self._graphs: dict[int, StepGraph] = {}
        self._load(weights)

    @_guarded
    def _load(self, weights: FusedWeights) -> None:
        self._table, self._bias = weights.table.to(self.device), weights.decoder_bias.to(self.device)
        self._layers = [place(layer, self.device, self._forms) for layer in weights.layers]

    @_guarded
    def advance(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state `[B, S]` after each row's last id.
        """
        batch, steps = ids.shape
        # Ids beyond a row's length are the caller's padding, and may be anything.
        inside = torch.arange(steps, device=lengths.device) < lengths[:, None]
        ids, inside, lengths = (part.to(self.device) for part in (torch.where(inside, ids, 0), inside, lengths))
        if steps == 1:
            state = torch.where(inside, self._step(ids[:, 0], state), state)
            return self._parts(state)[-2][:, None], state
        hidden = torch.zeros(batch, steps, self.hidden_size, device=self.device)
        count = max(1, MAX_TOKENS // max(1, batch))
        for start in range(0, steps if batch else 0, count):
            part = ids[:, start : start + count]
            read = (lengths - start).clamp(0, part.shape[1]).int()
            hidden[:, start : start + count], state = self._read(part, read, state)
        return hidden, state

    @_guarded
    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probability of every word `[N, V]` after `hidden [N, E]`; the caller bounds N."""
        return self._forms.log_probabilities(hidden, self._table, self._bias)

    @_guarded
    def top_k(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest words after `hidden [N, E]`, best first, ties by lower id.

        Returns ids and log-probabilities, both `[N, k]`; a k beyond V gives V of them.
        """
        return self._forms.top_k(hidden, self._table, self._bias, min(k, self.vocabulary_size))

    @_guarded
    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and rank of `targets [N]` after `hidden [N, E]`, in bounded memory whatever N.

        A rank is 1 + the number of words strictly likelier.
        """
        return self._forms.score(hidden, self._table, self._bias, targets.long().to(self.device))

    def _step(self, ids: Tensor, state: Tensor) -> Tensor:
        """The state after one id of every row, `ids [B]`; until the next call where a graph made it."""
        size = next((size for size in GRAPH_SIZES if size >= len(ids)), None)
        if self.device.type != "cuda" or size is None:
            after = torch.empty_like(state)
            self.write_step(ids, state, after)
            return after
        if size not in self._graphs:
            self._graphs[size] = StepGraph(self, size)
        return self._graphs[size].run(ids, state)

    def write_step(self, ids: Tensor, state: Tensor, after: Tensor) -> Tensor:
        """Put the state after one id of every row into `after [B, S]`; returns the part that is hidden `[B, E]`."""
        x: Tensor = self._table
        rows: Tensor | None = ids
        before, then = self._parts(state), self._parts(after)
        for index, layer in enumerate(self._layers):
            h, c = before[2 * index : 2 * index + 2]
            out = then[2 * index], then[2 * index + 1]
            self._forms.step(x, layer.packed, layer.bias, h, c, out, rows)
            x, rows = out[0], None
        return x

    def _read(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Many ids of every row, all on the device."""
        x = self._table[ids]
        parts, after = self._parts(state), []
        for index, layer in enumerate(self._layers):
            h, c = parts[2 * index : 2 * index + 2]
            x, *then = self._forms.sequence(layer.from_input(x), layer.context, h, c, lengths)
            after += then
        return x, torch.cat(after, dim=1)

    def _parts(self, state: Tensor) -> tuple[Tensor, ...]:
        """Every layer's h and c, one after the other: views of state rows."""
        parts: tuple[Tensor, ...] = state.split(self._sizes, dim=1)
        return parts


class StepGraph:
    """The step of one batch size as a CUDA graph: one launch in place of one a layer and more."""

    def __init__(self, model: FusedModel, batch: int) -> None:
        self._ids = torch.zeros(batch, dtype=torch.int64, device=model.device)
        self._state = torch.zeros(batch, model.state_size, device=model.device)
        self._after = torch.zeros_like(self._state)
        self._graph = captured(lambda: model.write_step(self._ids, self._state, self._after), model.device)

    def run(self, ids: Tensor, state: Tensor) -> Tensor:
        """The state after `ids [n]` from `state [n, S]`, for n up to the batch, until the next run."""
        self._ids[: len(ids)].copy_(ids)
        self._state[: len(ids)].copy_(state)
        self._graph.replay()
        return self._after[: len(ids)]


def captured(action: Callable[[], object], device: torch.device) -> torch.cuda.CUDAGraph:
    """What `action` puts on the GPU, as one graph that reads and writes the same memory whenever it is replayed."""
    # Kernels are compiled, and libraries loaded, before a capture, which forbids both.
    current, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    beside.wait_stream(current)
    with torch.cuda.stream(beside):
        action()
    current.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise EngineError(f"there is no {device} that torch can use; use the onnx engine, or install torch for CUDA")
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (capability, CAPABILITY))
        raise EngineError(
            f"{torch.cuda.get_device_name(device)} is of compute capability {found} and the fused kernels need "
            f"{needed}; use the onnx-cuda or the torchscript engine"
        )
