"""A bundle's float32 step graphs in ONNX Runtime's CUDA provider, with the state kept on the device within a call.

Boundary: that of `model.onnx_model`, whose graphs, cuts of time and head these are; here is only where arrays live. All
of it runs on the CPU as well (`device="cpu"`) and equals `OnnxModel` there to the bit: so it is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.arguments import Floats, Ids
from model.errors import EngineError
from model.onnx_model import OnnxModel, Rows, load_session, runtime_error

# isort: split
# After the module that keeps ONNX Runtime from reporting its use.
import onnxruntime

CUDA_PROVIDER = "CUDAExecutionProvider"
SETTINGS = {"use_tf32": "0"}
"""Tensor cores would round the operands of a float32 product to 10 bits."""

Device = Literal["cpu", "cuda"]


class OnnxCudaModel(OnnxModel):
    """The graphs of one precision, loaded on a device. Serves one caller at a time.

    A call that runs out of the device's memory raises `EngineError` and loses nothing but its own results.
    """

    def __init__(self, files: Iterable[Path], threads: int, device: Device = "cuda") -> None:
        """As `OnnxModel`; `threads` are those of the few operators that stay on the CPU.

        Raises `EngineError` that says what is missing where this ONNX Runtime cannot use the device.
        """
        self._device = device
        if device == "cuda":
            if missing := missing_provider():
                raise EngineError(missing)
            # Finds the libraries of CUDA and cuDNN that pip installed, torch's among them.
            onnxruntime.preload_dlls()
        super().__init__(files, threads)

    def advance(self, ids: Ids, lengths: Ids, state: Floats) -> tuple[Floats, Floats]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state `[B, S]` after each row's last id.
        """
        self._check_advance(ids, lengths, state)
        hidden = np.zeros((*ids.shape, self.hidden_size), np.float32)
        state = state.copy()
        parts: list[Rows] = []
        held: list[Any] = []
        try:
            for steps, goes_on in self._runs(lengths):
                # Rows only ever end: as many as before are the same as before.
                if sum(map(len, goes_on)) != sum(map(len, parts)):
                    self._fetch(held, parts, state)
                    parts = goes_on
                    held = [onnxruntime.OrtValue.ortvalue_from_numpy(state[rows], self._device) for rows in parts]
                for place, rows in enumerate(parts):
                    words = self._words(ids, lengths, rows, steps)
                    read, held[place] = self._step(steps.stop - steps.start, words, held[place])
                    hidden[rows, steps] = read
            self._fetch(held, parts, state)
        except Exception as error:  # The runtime's exceptions share no base but Exception.
            raise runtime_error(error) from error
        return hidden, state

    def _load(self, path: Path, threads: int) -> onnxruntime.InferenceSession:
        if self._device == "cpu":
            return load_session(path, threads)
        return load_session(path, threads, CUDA_PROVIDER, SETTINGS)

    def _load_lanes(self, steps: Mapping[int, Path], threads: int) -> dict[int, onnxruntime.InferenceSession]:
        return {}  # A device shares its work out by itself.

    def _step(self, length: int, words: Mapping[str, Ids], state: Any) -> tuple[Floats, Any]:
        """One run of a step graph on a state that is on the device: hidden here, and the state after it there."""
        session = self._steps[length]
        binding = session.io_binding()
        for name, array in words.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        binding.bind_ortvalue_input("state", state)
        binding.bind_output("hidden", "cpu")
        binding.bind_output("state_after", self._device)
        session.run_with_iobinding(binding)
        hidden, after = binding.get_outputs()
        return hidden.numpy(), after

    def _fetch(self, held: Iterable[Any], parts: Iterable[Rows], state: Floats) -> None:
        for value, rows in zip(held, parts, strict=True):
            state[rows] = value.numpy()


def missing_provider() -> str | None:
    """What to install where this ONNX Runtime was built without CUDA; None where it was built with it."""
    available = onnxruntime.get_available_providers()
    if CUDA_PROVIDER in available:
        return None
    return (
        f"this ONNX Runtime has no {CUDA_PROVIDER} (it has {', '.join(available)}); "
        "uninstall onnxruntime and install onnxruntime-gpu in its place"
    )


def built_for() -> str | None:
    """The version of CUDA that this ONNX Runtime was built for."""
    version: str | None = onnxruntime.cuda_version or None
    return version
