"""A model in torch behind the NumPy protocol of the engines, on a CPU or a GPU.

Boundary: arrays in and out; what runs them is a `TensorModel`, functions of tensors on one device. Here are the checks
of arguments, the chunks that bound memory, the likeliest words, and torch's errors as this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.arguments import Floats, Ids, check_advance, check_hidden, check_k, check_targets
from model.errors import EngineError, EngineMemoryError

Result = TypeVar("Result")

MAX_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens (rows x steps) of one run by kind of device: bounds its memory, about `8M` floats a token and layer."""
HEAD_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Log-probabilities of one run: on a CPU they stay in a cache, on a GPU they keep all of it busy."""
STEP_LENGTHS = (32, 16, 4, 1)
"""Any number of steps can be taken at once; these are enough to choose from."""

_LOW = (1 << 32) - 1


class TensorModel(Protocol):
    """A model's functions of tensors. State, hidden and results are float32 on its device.

    Ids, lengths and targets are int32 and on the CPU, where they were checked.
    """

    hidden_size: int
    state_size: int
    vocabulary_size: int

    def advance(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `lengths [B]` (0 to T) ids of each row of `ids [B, T]`, T at least 1, from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state after each row's last id.
        """

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probability of every word `[N, V]` after `hidden [N, E]`."""

    def top_k(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Ids and log-probabilities `[N, k]` of the k likeliest words (k at most V), best first, ties by lower id."""
        return top_k(self.log_probabilities(hidden), k)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and rank of `targets [N]`: 1 + the number of words strictly likelier."""
        return score(self.log_probabilities(hidden), targets)


class TorchModel:
    """A `TensorModel` for arrays. Serves one caller at a time.

    Log-probabilities are equal to the bit between `log_probabilities`, `top_k` and `score` of the same `hidden`. A call
    for which a GPU has too little memory raises `EngineMemoryError`, and the next one finds all of it free.
    """

    def __init__(self, model: TensorModel, device: torch.device, softmaxes: int = 1) -> None:
        """`softmaxes` is how many log-probabilities are made of each that is given: as many as a mixture has."""
        self._model = model
        self._device = device
        self._most_tokens = MAX_TOKENS[device.type]
        self._head_rows = max(1, HEAD_BYTES[device.type] // (4 * model.vocabulary_size * softmaxes))
        self.hidden_size, self.state_size = model.hidden_size, model.state_size
        self.vocabulary_size = model.vocabulary_size

    @property
    def step_lengths(self) -> list[int]:
        """Steps that one call may take, longest first."""
        return list(STEP_LENGTHS)

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state `[B, S]` after each row's last id.
        """
        check_advance(ids, lengths, state, vocabulary_size=self.vocabulary_size, state_size=self.state_size)
        hidden = np.zeros((*ids.shape, self.hidden_size), np.float32)
        state = state.copy()
        start = 0
        while (rows := np.flatnonzero(lengths > start)).size:
            parts = np.array_split(rows, -(-rows.size // self._most_tokens))
            length = min(max(1, self._most_tokens // len(parts[0])), int(lengths.max()) - start)
            steps = slice(start, start + length)
            for part in parts:
                read = np.minimum(lengths[part] - start, length)
                # Ids beyond a row's length are the caller's padding, and may be anything.
                inside = np.where(np.arange(length) < read[:, None], ids[part, steps], 0)
                hidden[part, steps], state[part] = self._run(self._model.advance, inside, read, state[part])
            start += length
        return hidden, state

    def log_probabilities(self, hidden: Floats) -> Floats:
        """Log-probability of every word `[N, V]` after `hidden [N, E]`; the caller bounds N."""
        result = np.empty((len(hidden), self.vocabulary_size), np.float32)
        for rows in self._parts(hidden):
            (result[rows],) = self._run(lambda part: (self._model.log_probabilities(part),), hidden[rows])
        return result

    def top_k(self, hidden: Floats, k: int) -> tuple[Ids, Floats]:
        """The k likeliest words after `hidden [N, E]`, best first, ties by lower id.

        Returns ids and log-probabilities, both `[N, k]`; a k beyond V gives V of them.
        """
        check_k(k)
        k = min(k, self.vocabulary_size)
        best = np.empty((len(hidden), k), np.int32)
        values = np.empty((len(hidden), k), np.float32)
        for rows in self._parts(hidden):
            best[rows], values[rows] = self._run(lambda part: self._model.top_k(part, k), hidden[rows])
        return best, values

    def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
        """Log-probability and rank of `targets [N]` after `hidden [N, E]`, in bounded memory whatever N.

        A rank is 1 + the number of words strictly likelier.
        """
        check_targets(hidden, targets, self.vocabulary_size)
        values = np.empty(len(hidden), np.float32)
        ranks = np.empty(len(hidden), np.int32)
        for rows in self._parts(hidden):
            values[rows], ranks[rows] = self._run(self._model.score, hidden[rows], targets[rows])
        return values, ranks

    def _parts(self, hidden: Floats) -> Iterator[slice]:
        """Rows of `hidden` that are treated together; all callers cut alike, so that float32 sums agree."""
        check_hidden(hidden, self.hidden_size)
        for start in range(0, len(hidden), self._head_rows):
            yield slice(start, min(start + self._head_rows, len(hidden)))

    def _run(self, function: Callable[..., tuple[Tensor, ...]], *arrays: Ids | Floats) -> list[np.ndarray]:
        """Call a function of tensors with arrays, int32 or float32."""
        try:
            with torch.inference_mode():
                tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
                placed = [tensor.to(self._device) if tensor.is_floating_point() else tensor for tensor in tensors]
                return [tensor.cpu().numpy() for tensor in function(*placed)]
        except EngineError:
            raise  # It says all there is to say, and holds nothing of the call.
        except Exception as problem:  # torch's own share no base but Exception.
            error = _engine_error(problem)
        # Raised here, since a handled exception would keep the tensors of the failed call alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise error


def find_device(name: str) -> torch.device:
    """The device called "cpu" or "cuda"; `EngineError` where torch finds no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("this torch finds no GPU; install its driver and torch's build for CUDA, or use the CPU")
    return torch.device(name)


def top_k(likely: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids (int32) and values `[N, k]` of the k largest of each row of `likely [N, V]`, best first, ties by lower id.

    `torch.topk` leaves the order of ties open. So each value becomes an integer of the same order, with the id, counted
    from the end, in the bits below.
    """
    # Adding zero makes -0.0 equal to 0.0 in its bits too.
    bits = (likely + 0.0).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    keys = (ordered << 32) | (_LOW - torch.arange(likely.shape[1], device=likely.device))
    ids = _LOW - (keys.topk(k, dim=1).values & _LOW)
    return ids.int(), likely.gather(1, ids)


def score(likely: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Values of `targets [N]` in `likely [N, V]`, and their ranks (int32)."""
    values = likely.gather(1, targets.to(likely.device, torch.int64).unsqueeze(1))
    return values[:, 0], (likely > values).sum(dim=1, dtype=torch.int32) + 1


def _engine_error(problem: Exception) -> EngineError:
    """What is raised where a run fails: that run is lost, and the next one may succeed."""
    reason = reason_of(problem)
    # TorchScript's interpreter raises a plain error whatever its operators raised.
    if isinstance(problem, torch.OutOfMemoryError) or "out of memory" in reason or "allocate memory" in reason:
        return EngineMemoryError(f"memory is full: free some for the engine, or send fewer texts at once ({reason})")
    return EngineError(f"torch failed while running the model: {reason}")


def reason_of(error: Exception) -> str:
    """One line that says what torch failed at: the first, or the last of a traceback of TorchScript."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "TorchScript" in lines[0] else lines[0]
