"""A model as programs of torch: TorchScript, and `torch.export` beside it.

Boundary: a model in, the files of `model.torchscript_model` out. Whether they compute what the model does, is found out
by `export.validate`.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.files import write_atomically
from model.inference import InferenceModel
from model.language_model import LanguageModel
from model.torchscript_model import HEAD, SCRIPT, STEP, VERSION

_DEBUG = ".debug_pkl"
"""Where each line of TorchScript came from: paths of the machine that exported it, for error messages alone."""


def write_torchscript(model: LanguageModel, folder: Path) -> list[Path]:
    """Write every program into a new `folder`; the files written."""
    folder.mkdir(parents=True)
    inference = InferenceModel(model).eval()
    rows = torch.export.Dim("rows")
    words = torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, dtype=torch.int32), model.initial_state(2)
    hidden = torch.zeros(2, model.config.embedding_size), model.embedding.weight.detach()
    files = {
        SCRIPT: torchscript(inference),
        STEP: program(inference, words, ({0: rows}, {0: rows}, {0: rows})),
        HEAD: program(inference.decoder, hidden, ({0: rows}, {})),
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]


def torchscript(module: nn.Module) -> bytes:
    """A module as TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        for function in ("script", "save"):
            warnings.filterwarnings("ignore", f"`torch.jit.{function}` is deprecated", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), buffer, _extra_files={VERSION: torch.__version__})
    clean = io.BytesIO()
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(clean, "w") as kept:
        for entry in written.infolist():
            if not entry.filename.endswith(_DEBUG):
                kept.writestr(entry, written.read(entry))
    return clean.getvalue()


def program(module: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[dict[int, Any], ...]) -> bytes:
    """A module as a program of `torch.export`, its parameters as in the module; `axes` are free."""
    exported = torch.export.export(module, inputs, dynamic_shapes=axes)
    # They would be stored as a pickle.
    exported.example_inputs = None
    for node in exported.graph.nodes:
        # Paths of this machine.
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer, extra_files={VERSION: torch.__version__})
    return buffer.getvalue()
