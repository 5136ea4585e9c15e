"""Triton's interpreter with a mended bfloat16, which it holds as 16-bit integers: it cuts numbers off in place of
rounding them, and multiplies matrices of the integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch


def mend(patch: pytest.MonkeyPatch) -> None:
    """Round to the nearest, as a GPU does, and multiply values."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain_cast, plain_dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast(self: Any, source: Any, dtype: Any) -> Any:
        pair = source.dtype.scalar, dtype.scalar
        if pair == (tl.float32, tl.bfloat16):
            return TensorHandle(rounded(source.data), tl.bfloat16)
        if pair == (tl.bfloat16, tl.float32):
            return TensorHandle(widened(source.data), tl.float32)
        return plain_cast(self, source, dtype)

    def dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            a, b = (TensorHandle(widened(operand.data), tl.float32) for operand in (a, b))
        return plain_dot(self, a, b, *others)

    patch.setattr(InterpreterBuilder, "cast_impl", cast)
    patch.setattr(InterpreterBuilder, "create_fp_to_fp", lambda self, source, dtype, mode: cast(self, source, dtype))
    patch.setattr(InterpreterBuilder, "create_dot", dot)


def rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16."""
    return torch.tensor(values).bfloat16().view(torch.uint16).numpy()


def widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The values of bfloat16 bits."""
    return torch.tensor(bits).view(torch.bfloat16).float().numpy()
