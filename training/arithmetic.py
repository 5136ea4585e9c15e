"""Which arithmetic a device is fast in.

Boundary: asks torch what the device has; what is done with the answer is `training.trainer`'s.
"""

from __future__ import annotations

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16.

    torch computes them everywhere, but on a processor without such instructions 35 times slower than in float32 (one
    product of 1,400 x 1,000 by 1,000 x 4,000 on an AMD EPYC with AVX2 alone).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
