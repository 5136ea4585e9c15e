"""An exported model in ONNX Runtime: the unrolled step graphs and the head, run over any batch, length and vocabulary.

Boundary: word ids and arrays in, hidden vectors, state and log-probabilities out; graphs are read from files. Export
accepts a bundle with this code and the service answers with it, so what was validated is what is served. Imports no
torch and no onnx.

A precision's folder holds one weights file and these graphs:

    steps-1.onnx     ids [B, 1] int32, state [B, S]  ->  hidden [B, 1, E], state_after [B, S]
    steps-<T>.onnx   the same for ids [B, T], of which each row has its own lengths [B] int32 (0 to T)
    head.onnx        hidden [N, E]  ->  log_probabilities [N, V]
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model import ranking
from model.arguments import Floats, Ids, check_advance, check_hidden, check_k, check_targets
from model.errors import EngineError, EngineMemoryError

# Unless told not to before it is imported, ONNX Runtime gives the machine an id and reports its use to its makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

Rows = npt.NDArray[np.intp]

RUNTIME_VERSION: str = onnxruntime.__version__
CPU_PROVIDER = "CPUExecutionProvider"
HEAD = "head.onnx"
STEPS_NAME = re.compile(r"steps-([1-9][0-9]*)\.onnx")

MAX_TOKENS = 512
"""Tokens (rows x steps) of one run of a step graph: bounds its memory, whose largest part is `4M` floats a token."""
LANE_ROWS = 4
"""Rows from which it is faster to give a thread some of its own than to share out every operator."""
HEAD_BYTES = 8 << 20
"""Log-probabilities of one run of the head: large enough for full speed, small enough to stay in a cache."""
SOFTMAXES = "softmaxes"
"""Property of a head that mixes softmaxes: how many log-probabilities it makes of each that it gives."""


def steps_name(length: int) -> str:
    """File name of the graph unrolled over `length` steps."""
    return f"steps-{length}.onnx"


class OnnxModel:
    """The graphs of one precision, loaded. Serves one caller at a time.

    Log-probabilities are equal to the bit between `log_probabilities`, `top_k` and `score` of the same `hidden`. With
    int8 they are equal to the bit whatever shares the batch, however time is cut, and on any number of threads.
    """

    def __init__(self, files: Iterable[Path], threads: int) -> None:
        """Load `steps-<T>.onnx` (T=1 is needed) and `head.onnx`; raises `EngineError` naming what cannot be loaded."""
        by_name = {path.name: path for path in files}
        steps = {int(match[1]): path for name, path in by_name.items() if (match := STEPS_NAME.fullmatch(name))}
        if missing := {steps_name(1), HEAD} - by_name.keys():
            raise EngineError(f"the bundle lists no {min(missing)}; export it again")
        self._steps = {length: self._load(steps[length], threads) for length in sorted(steps, reverse=True)}
        self._lanes = self._load_lanes(steps, threads)
        self._pool = ThreadPoolExecutor(threads, "lane")
        self._threads = threads
        self._head = self._load(by_name[HEAD], threads)
        self.hidden_size, self.vocabulary_size = (
            _last_size(value) for value in (self._head.get_inputs()[0], self._head.get_outputs()[0])
        )
        self.state_size = _last_size(self._steps[1].get_outputs()[1])
        self._head_rows = max(1, HEAD_BYTES // (4 * self.vocabulary_size * _softmaxes(self._head)))

    @property
    def step_lengths(self) -> list[int]:
        """Lengths of the unrolled graphs, longest first."""
        return list(self._steps)

    @property
    def sessions(self) -> dict[str, onnxruntime.InferenceSession]:
        """Every loaded graph by its file's name."""
        return {steps_name(length): session for length, session in self._steps.items()} | {HEAD: self._head}

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state `[B, S]` after each row's last id.
        """
        self._check_advance(ids, lengths, state)
        hidden = np.zeros((*ids.shape, self.hidden_size), np.float32)
        state = state.copy()

        def read(steps: slice, session: onnxruntime.InferenceSession, rows: Rows) -> None:
            feeds = self._words(ids, lengths, rows, steps) | {"state": state[rows]}
            hidden[rows, steps], state[rows] = _run(session, feeds)

        for steps, parts in self._runs(lengths):
            length = steps.stop - steps.start
            shared = len(parts) > 1 and length in self._lanes
            session = (self._lanes if shared else self._steps)[length]
            # Raises what any of the runs raised.
            deque((self._pool.map if shared else map)(partial(read, steps, session), parts), maxlen=0)
        return hidden, state

    def _load(self, path: Path, threads: int) -> onnxruntime.InferenceSession:
        return load_session(path, threads)

    def _load_lanes(self, steps: Mapping[int, Path], threads: int) -> dict[int, onnxruntime.InferenceSession]:
        """The longer graphs once more, to be run on one thread by as many threads as there are.

        A step has too little work to be shared out; rows have nothing to do with one another.
        """
        return {length: self._load(path, 1) for length, path in steps.items() if length > 1} if threads > 1 else {}

    def _runs(self, lengths: Ids) -> Iterator[tuple[slice, list[Rows]]]:
        """The steps that each run takes, in order, and the rows that have any of them left: a part of them a run."""
        start = 0
        while (rows := np.flatnonzero(lengths > start)).size:
            remaining = int(lengths.max()) - start
            fewest = -(-rows.size // MAX_TOKENS)
            parts = max(fewest, min(self._threads, rows.size // LANE_ROWS)) if self._lanes else fewest
            length = self._length_of_run(-(-rows.size // parts), remaining)
            yield slice(start, start + length), np.array_split(rows, parts if length > 1 else fewest)
            start += length

    def _words(self, ids: Ids, lengths: Ids, rows: Rows, steps: slice) -> dict[str, Ids]:
        """What a step graph is fed besides the state."""
        length = steps.stop - steps.start
        read = np.minimum(lengths[rows] - steps.start, length)
        # Ids beyond a row's length are the caller's padding, and may be anything.
        inside = np.where(np.arange(length) < read[:, None], ids[rows, steps], 0)
        return {"ids": inside} | ({"lengths": read} if length > 1 else {})

    def log_probabilities(self, hidden: Floats) -> Floats:
        """Log-probability of every word `[N, V]` after `hidden [N, E]`; the caller bounds N."""
        result = np.empty((len(hidden), self.vocabulary_size), np.float32)
        for rows, values in self._heads(hidden):
            result[rows] = values
        return result

    def top_k(self, hidden: Floats, k: int) -> tuple[Ids, Floats]:
        """The k likeliest words after `hidden [N, E]`, best first, ties by lower id.

        Returns ids and log-probabilities, both `[N, k]`; a k beyond V gives V of them.
        """
        check_k(k)
        k = min(k, self.vocabulary_size)
        best = np.empty((len(hidden), k), np.int32)
        values = np.empty((len(hidden), k), np.float32)
        for rows, chunk in self._heads(hidden):
            for row, likely in zip(range(rows.start, rows.stop), chunk, strict=True):
                best[row], values[row] = ranking.top_k(likely, k)
        return best, values

    def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
        """Log-probability and rank of `targets [N]` after `hidden [N, E]`, in bounded memory whatever N.

        A rank is 1 + the number of words strictly likelier.
        """
        check_targets(hidden, targets, self.vocabulary_size)
        values = np.empty(len(hidden), np.float32)
        ranks = np.empty(len(hidden), np.int32)
        for rows, chunk in self._heads(hidden):
            for row, likely in zip(range(rows.start, rows.stop), chunk, strict=True):
                values[row] = likely[targets[row]]
                ranks[row] = ranking.rank(likely, targets[row])
        return values, ranks

    def _heads(self, hidden: Floats) -> Iterator[tuple[slice, Floats]]:
        """Log-probabilities of a few rows at a time: views of the runtime's own memory, so nothing is copied.

        All three callers cut `hidden` alike, so float32 sums, whose order depends on the number of rows, agree.
        """
        check_hidden(hidden, self.hidden_size)
        for start in range(0, len(hidden), self._head_rows):
            rows = slice(start, min(start + self._head_rows, len(hidden)))
            yield rows, _run(self._head, {"hidden": hidden[rows]})[0]

    def _length_of_run(self, rows: int, remaining: int) -> int:
        """The longest graph that has no step too many and keeps to `MAX_TOKENS`; that of one step always fits."""
        return next(
            length for length in self._steps if length <= remaining and (length * rows <= MAX_TOKENS or length == 1)
        )

    def _check_advance(self, ids: Ids, lengths: Ids, state: Floats) -> None:
        check_advance(ids, lengths, state, vocabulary_size=self.vocabulary_size, state_size=self.state_size)


def load_session(
    path: Path, threads: int, provider: str = CPU_PROVIDER, settings: Mapping[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """Load one graph on `threads` threads, for `provider` with its own `settings`.

    Raises `EngineError` that names the file where the runtime refuses it, and where it would run it elsewhere.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An idle service must not burn its cores while it waits for the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its plans for each shape seen pay off when shapes repeat; here they only held a third more memory.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[(provider, dict(settings or {}))], enable_fallback=0
        )
    except Exception as error:  # The runtime's exceptions share no base but Exception.
        raise EngineError(f"{path} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
    # A provider whose libraries are missing is passed over in silence.
    if (first := session.get_providers()[0]) != provider:
        raise EngineError(
            f"ONNX Runtime took {first}, since its {provider} could not be loaded; "
            "install the libraries and the driver that it was built for"
        )
    return session


def runtime_error(error: Exception) -> EngineError:
    """What is raised where a run of a loaded graph fails: that run is lost, and the next one may succeed."""
    text = _first_line(error)
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return EngineMemoryError(f"memory is full: free some for the engine, or send fewer texts at once ({text})")
    return EngineError(f"ONNX Runtime failed while running the model: {text}")


def _run(session: onnxruntime.InferenceSession, feeds: Mapping[str, npt.NDArray[Any]]) -> list[Floats]:
    try:
        outputs: list[Floats] = session.run(None, feeds)
    except Exception as error:  # The runtime's exceptions share no base but Exception.
        raise runtime_error(error) from error
    return outputs


def _last_size(value: Any) -> int:
    """Length of the last axis of a graph's input or output."""
    size = value.shape[-1]
    if not isinstance(size, int):
        raise EngineError(f"graph value {value.name} has no fixed last axis; export the bundle again")
    return size


def _softmaxes(head: onnxruntime.InferenceSession) -> int:
    """How many softmaxes a head mixes."""
    found = head.get_modelmeta().custom_metadata_map.get(SOFTMAXES, "1")
    if not re.fullmatch("[1-9][0-9]{0,3}", found):
        raise EngineError(f"the head mixes {found!r} softmaxes; export the bundle again")
    return int(found)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
