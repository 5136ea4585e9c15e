"""A model as the ONNX graphs of one precision (`model.onnx_model` says what is what).

Boundary: a folded model in, files out. Whether they compute what the model does, is found out by `export.validate`.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from export.arithmetic import Arithmetic
from export.builder import WeightStore
from export.graph import build_head, build_steps
from export.weights import FoldedModel
from model.files import write_atomically
from model.onnx_model import HEAD, steps_name

STEP_LENGTHS = (1, 4, 16, 32)
"""Steps of the unrolled graphs: one for a keystroke; the longest is 2 to 3 times faster a token for one text alone."""
WEIGHTS = "weights.bin"


def write_graphs(model: FoldedModel, arithmetic: Arithmetic, folder: Path) -> list[Path]:
    """Write every graph of one precision and their weights into a new `folder`; the files written."""
    folder.mkdir(parents=True)
    store = WeightStore(WEIGHTS)
    graphs = {steps_name(length): build_steps(model, length, arithmetic, store) for length in STEP_LENGTHS}
    graphs[HEAD] = build_head(model, arithmetic, store)
    store.write(folder)
    for name, graph in graphs.items():
        write_atomically(folder / name, graph.SerializeToString(deterministic=True))
        onnx.checker.check_model(folder / name)
    return [folder / name for name in (*graphs, WEIGHTS)]
