"""Kernels compiled for a device that need not be there: `python -m tests.model.kernels.compiling`.

Prints a JSON line a kernel: its name, and registers, bytes of stack (where spilled registers go) and of shared memory
that a program takes, as the assembler reports them. Runs in a process of its own, where Triton does not interpret.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from model.kernels import decode, head, recurrence, sequence
from model.kernels.launch import Launch
from model.kernels.rows import add_up, merge

TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
DTYPE = torch.bfloat16
WORDS, EMBEDDING, HIDDEN, GROUPS = 33_278, 400, 1400, 4
TILES = -(-WORDS // head.cut(1, DTYPE.itemsize).block_v)


def launches() -> Iterator[tuple[str, Launch]]:
    """Every kernel at the sizes of the paper's WikiText-2 model, for one row and for many, each with a name."""
    with torch.device("meta"):
        for batch, inputs, outputs in (
            (1, EMBEDDING, HIDDEN),
            (1, HIDDEN, HIDDEN),
            (1, HIDDEN, EMBEDDING),
            (16, HIDDEN, HIDDEN),
            (256, HIDDEN, HIDDEN),
        ):
            yield f"step {inputs}-{outputs} x {batch}", step(batch, inputs, outputs)
        for batch, outputs in ((1, HIDDEN), (256, HIDDEN), (256, EMBEDDING)):
            yield f"sequence {outputs} x {batch}", whole(batch, outputs)
        for kernel, tensors in ((recurrence._forward, 6), (recurrence._backward, 8)):
            arguments = [torch.empty(80, HIDDEN, dtype=DTYPE)] * tensors
            name = kernel.fn.__name__.removeprefix("_")
            yield f"training {name}", recurrence.launch(kernel, GROUPS, 350, 352, *arguments)
        for count in (1, 8, 256):
            for form in head.Form:
                yield f"head {form.name} x {count}", tiles(form, count)
            of_tiles, best = torch.empty(count, TILES), torch.empty(count, 5)
            candidates = torch.empty(count, TILES, 8, dtype=torch.int64)
            yield f"rows add_up x {count}", add_up(of_tiles, torch.empty(count, 1))
            yield f"rows merge x {count}", merge(candidates, of_tiles, best.int(), best)


def step(batch: int, inputs: int, outputs: int) -> Launch:
    m = outputs // GROUPS
    matrix = torch.empty(GROUPS, -(-m // decode.TILE), inputs + m, decode.TILE, 4, dtype=DTYPE)
    ids = torch.empty(batch, dtype=torch.int64) if inputs == EMBEDDING else None
    x = torch.empty(batch, inputs) if ids is None else torch.empty(WORDS, inputs, dtype=DTYPE)
    bias, state = torch.empty(4, outputs), torch.empty(batch, outputs)
    return decode.launch(x, matrix, bias, state, state, (state, state), ids)


def whole(batch: int, outputs: int) -> Launch:
    m = outputs // GROUPS
    context = torch.empty(GROUPS, m, -(-m // 8) * 8, 4, dtype=DTYPE).transpose(2, 3)
    pre = torch.empty(batch, 35, 4, outputs)
    state, lengths = torch.empty(batch, outputs), torch.empty(batch, dtype=torch.int32)
    return sequence.launch(pre, context, state, state, lengths, torch.empty(36, batch, outputs), (state, state))


def tiles(form: head.Form, rows: int) -> Launch:
    hidden, table, bias = torch.empty(rows, EMBEDDING), torch.empty(WORDS, EMBEDDING, dtype=DTYPE), torch.empty(WORDS)
    out = {
        head.Form.LOGITS: torch.empty(rows, WORDS),
        head.Form.TARGETS: torch.empty(rows),
        head.Form.CANDIDATES: torch.empty(rows, TILES, 8, dtype=torch.int64),
        head.Form.RANKS: torch.empty(rows, TILES, dtype=torch.int32),
    }[form]
    given = torch.empty(rows, dtype=torch.float32 if form is head.Form.RANKS else torch.int64)
    return head.launch(form, hidden, table, bias, out, torch.empty(rows, TILES), given)


def compiled(launch: Launch, capability: int) -> triton.compiler.CompiledKernel:
    """The kernel as a launch would compile it: where it may, it makes a 1 a constant and knows multiples of 16."""
    signature, constants, attributes = {}, dict(launch.constants), {}
    for index, (name, parameter) in enumerate(zip(launch.kernel.arg_names, launch.kernel.params, strict=True)):
        value = launch.arguments.get(name)
        if isinstance(value, Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif parameter.do_not_specialize:
            signature[name] = "i32"
        elif value is None or value == 1:
            signature[name] = "constexpr"
            constants.setdefault(name, 1)
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def resources(kernel: triton.compiler.CompiledKernel) -> dict[str, int]:
    """What a program takes of a multiprocessor."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return found | {"SHARED": kernel.metadata.shared}


if __name__ == "__main__":
    for name, launch in launches():
        print(json.dumps({"kernel": name} | resources(compiled(launch, 90))), flush=True)
