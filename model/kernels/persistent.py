"""The recurrence of one layer as an operator, `torch.ops.pru.grouped_sequence`: `reference.sequence` on every device.

On a CPU it is the reference. On a Hopper GPU it is the persistent kernel, one launch for all steps whose weights stay
on chip, where a group is not too wide for it and the kernel can be built; on a GPU otherwise it is the Triton kernel.

Boundary: tensors in, new tensors out, on the current stream, without waiting for the device.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import pad

from model.errors import EngineError
from model.kernels import reference
from model.kernels.persistent_build import FORMATS, library
from model.kernels.persistent_plan import Plan, plan

Result = tuple[Tensor, Tensor, Tensor]

HOPPER = 9
"""Major compute capability of the GPUs that the persistent kernel is built for."""

_log = logging.getLogger(__name__)


class Kernel:
    """One build of the persistent kernel, loaded."""

    def __init__(self, path: Path) -> None:
        """Raises `EngineError` where the file is not a library of this machine."""
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as problem:
            raise EngineError(f"{path} cannot be loaded ({problem}); delete it, and it is built again") from None
        self._library.pru_error.restype = ctypes.c_char_p
        self._library.pru_clusters.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
        self._library.pru_sequence.argtypes = [ctypes.c_void_p] * 8 + [ctypes.c_int] * 4 + [ctypes.c_void_p]

    def clusters(self, device: int) -> int:
        """How many clusters a device runs at once: 0 where it has no place for one."""
        clusters = ctypes.c_int()
        self._check(self._library.pru_clusters(device, ctypes.byref(clusters)))
        return clusters.value

    def run(
        self, pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor, *, device: int, stream: int
    ) -> Result:
        """`reference.sequence` by a launch on a stream of a device, given as the CUDA runtime knows them."""
        batch, steps = pre.shape[:2]
        if batch == 0 or steps == 0:
            return h.new_empty(batch, steps, h.shape[1]), h.clone(), c.clone()
        # Held by name until the launch: what is freed before it may be given to another tensor.
        inputs = [tensor.contiguous() for tensor in (pre.float(), context, h, c, lengths.int())]
        outputs = h.new_empty(batch, steps, h.shape[1]), h.new_empty(h.shape), c.new_empty(c.shape)
        pointers = [tensor.data_ptr() for tensor in (*inputs, *outputs)]
        self._check(self._library.pru_sequence(*pointers, batch, steps, context.shape[0], device, stream))
        return outputs

    def _check(self, error: int) -> None:
        if error:
            reason = self._library.pru_error(error).decode()
            raise EngineError(f"the persistent kernel failed: {reason} (CUDA error {error}); restart the process")


@custom_op("pru::grouped_sequence", mutates_args=(), device_types="cpu")
def grouped_sequence(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> Result:
    """`reference.sequence`: `pre [B, T, 4, M]`, `context [g, m, 4, m]`, state `[B, M]`, `lengths [B]` (0 to T).

    Raises `EngineError` where shapes do not fit together, or a build or a launch fails.
    """
    _check_shapes(pre, context, h, c, lengths)
    outputs, h_after, c_after = reference.sequence(pre, context, h, c, lengths)
    # Without a step the reference gives the state it was given, which an operator must not.
    return outputs, (h_after.clone() if h_after is h else h_after), (c_after.clone() if c_after is c else c_after)


@grouped_sequence.register_fake
def _(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> Result:
    return h.new_empty(*pre.shape[:2], h.shape[1]), h.new_empty(h.shape), c.new_empty(c.shape)


@grouped_sequence.register_kernel("cuda")
def _(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> Result:
    _check_shapes(pre, context, h, c, lengths)
    kernel = kernel_for(pre, context, h, c)
    if kernel is None:
        return _fallback(pre, context, h, c, lengths)
    device = pre.device
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        return kernel.run(pre, context, h, c, lengths, device=device.index, stream=stream)


def _check_shapes(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> None:
    if pre.dim() != 4 or context.dim() != 4:
        raise EngineError("give pre [B, T, 4, M] and context [g, m, 4, m]")
    groups, width = context.shape[:2]
    batch, outputs = len(h), groups * width
    expected = {
        "pre": (pre, (batch, pre.shape[1], 4, outputs)),
        "context": (context, (groups, width, 4, width)),
        "h": (h, (batch, outputs)),
        "c": (c, (batch, outputs)),
        "lengths": (lengths, (batch,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape or tensor.device != pre.device:
            found = f"{list(tensor.shape)} on {tensor.device}"
            raise EngineError(f"{name} is {found}; give {list(shape)} on {pre.device}, as the others say")


def kernel_for(pre: Tensor, context: Tensor, h: Tensor, c: Tensor) -> Kernel | None:
    """The persistent kernel for these arguments on a GPU; None where it is not made for them, or cannot run there."""
    weights = str(context.dtype).removeprefix("torch.")
    properties = torch.cuda.get_device_properties(pre.device)
    if properties.major != HOPPER or weights not in FORMATS or {h.dtype, c.dtype} != {torch.float32}:
        return None
    groups, width = context.shape[:2]
    chosen = plan(width, groups, max(1, len(h)), properties.multi_processor_count)
    return _loaded(chosen, weights, pre.device.index) if chosen else None


@functools.cache
def _loaded(chosen: Plan, weights: str, device: int) -> Kernel | None:
    path = library(chosen, weights)
    if path is None:
        _log.warning("no nvcc to build the persistent kernel with: the Triton kernel runs in its place")
        return None
    kernel = Kernel(path)
    return kernel if kernel.clusters(device) else None


def _fallback(pre: Tensor, context: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> Result:
    from model.kernels.sequence import sequence  # noqa: PLC0415 - needs Triton, which a CPU's torch comes without

    # With an output's gates beside each other, and 8 outputs' at 16 bytes, one load reads several.
    padded = pad(context, (0, -context.shape[1] % 8)).transpose(-1, -2).contiguous().transpose(-1, -2)
    outputs, h_after, c_after = sequence(pre.float(), padded, h, c, lengths)
    return outputs.contiguous(), h_after, c_after
