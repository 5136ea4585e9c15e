"""What a machine computes with: which arithmetic a device is fast in, and the whole of it for a record.

Boundary: asks torch and the system what there is; what is done with the answer is `training.trainer`'s.
"""

from __future__ import annotations

import os

import torch

from model.machine import processor_name


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16.

    torch computes them everywhere, but on a processor without such instructions 35 times slower than in float32 (one
    product of 1,400 x 1,000 by 1,000 x 4,000 on an AMD EPYC with AVX2 alone).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def hardware(device: torch.device, *, bfloat16: bool) -> dict[str, str | int | None]:
    """What a record says of the machine, and of the products of training."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "products": "bfloat16" if bfloat16 else "float32",
        **({"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
    }
