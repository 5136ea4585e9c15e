"""What a machine computes with: which arithmetic a device is fast in, and what a record says of it.

Boundary: asks torch and the system what there is; what is done with the answer is `training.trainer`'s.
"""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

import torch

from model.language_model import LanguageModel
from model.machine import processor_name
from model.pru import PRULayer, reads_at_once


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16.

    torch computes them everywhere, but on a processor without such instructions 35 times slower than in float32 (one
    product of 1,400 x 1,000 by 1,000 x 4,000 on an AMD EPYC with AVX2 alone).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def of_recurrence(model: LanguageModel, device: torch.device) -> dict[str, str]:
    """What a record says of figures measured without gradients: nothing, but where a GPU rounds the recurrence.

    There its products are in float16, summed in float32 (`model.recurrence`).
    """
    rounded = device.type == "cuda" and any(
        isinstance(layer, PRULayer) and reads_at_once(layer) for layer in model.layers
    )
    return {"recurrence": "float16"} if rounded else {}


def circumstances(device: torch.device, *, bfloat16: bool) -> dict[str, Any]:
    """What a record says of the day, the machine, the products of training and the versions of programs."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "products": "bfloat16" if bfloat16 else "float32",
            **({"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
