"""An exported model in torch, without the code that it was made of: a TorchScript program, or one of `torch.export`.

Boundary: files in, the engines' protocol out. Export accepts a bundle with this code and the service answers with it.

    model.pt     TorchScript: `forward` and `log_probabilities` of `model.inference`, parameters by their names
    model.pt2    torch.export: the same `forward` for one step, ids [B, 1]; B is free. Its loop over time would be
                 unrolled, so a program for every T would be one for each; here the loop is this file's
    head.pt2     torch.export: log-probabilities [N, V] of hidden [N, E], given the embedding's weight of `model.pt2`

`model.pt` serves; the other two are for a torch that has no TorchScript any more.

On trust. `torch.jit.load` reads the pickles in `model.pt` with an unpickler of its own in C++, which makes tensors and
TorchScript's objects and calls no Python; the program may use any of torch's operators, some of which write files.
`torch.export.load` hands sample inputs, constants of unknown kinds and tensors of unknown classes to Python's pickle,
which can do anything, and evaluates expressions of shapes. The files of an export hold none of the former and few of
the latter, so a file that holds anything else is refused before torch sees it. Even so, both are programs: run those
of bundles whose maker you trust.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.errors import EngineError
from model.torch_model import TensorModel, TorchModel, find_device, reason_of

Loaded = TypeVar("Loaded")

SCRIPT, STEP, HEAD = "model.pt", "model.pt2", "head.pt2"
VERSION = "torch"
"""Extra file, in each of the three, with the version of torch that wrote it."""

_MEND = "restore the file, or export the bundle again"
_ENTRIES = re.compile(
    r"(\.data/(version|serialization_id)|\.format_version|\.storage_alignment|byteorder|archive_(format|version)"
    rf"|extra/{VERSION}|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)))"
)
"""What a file of `torch.export` holds, below its one folder, if none of it is a pickle or machine code."""
_WORDS = re.compile(r"Add|Mul|Pow|Max|Min|FloorDiv|Mod|Integer|Symbol|positive|nonnegative|integer|True|[su]\d+")
"""The words of an expression of shapes."""


class TorchScriptModel(TorchModel):
    """An artefact's programs, loaded on a device. They run on as many threads as `torch.set_num_threads` says."""

    def __init__(self, files: Iterable[Path], device: str = "cpu", *, exported: bool | None = None) -> None:
        """Load `model.pt`; or, if `exported`, `model.pt2` and `head.pt2`: unless told, where torch has no TorchScript.

        Raises `EngineError` that names the file where one cannot be loaded, with both versions of torch where another
        one wrote it.
        """
        by_name = {path.name: path for path in files}
        target = find_device(device)
        if exported is None:
            exported = not hasattr(torch.jit, "load")
        model: _Scripted | _Exported
        if exported:
            step, head = _listed(by_name, STEP), _listed(by_name, HEAD)
            program = _loaded(head, lambda: _program(head, target))
            model = _loaded(step, lambda: _Exported(_program(step, target), program))
        else:
            path = _listed(by_name, SCRIPT)
            model = _loaded(path, lambda: _Scripted(path, target))
        super().__init__(model, target, model.softmaxes)


class _Sizes(TensorModel):
    """Sizes of a model, from its parameters."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        if "embedding.weight" not in parameters:
            raise EngineError("holds a program, but no language model")
        self.vocabulary_size, self.hidden_size = parameters["embedding.weight"].shape
        biases = (tensor for name, tensor in parameters.items() if name.endswith(".context.bias"))
        self.state_size = sum(2 * bias.shape[1] for bias in biases)
        prior = parameters.get("decoder.prior.weight")
        self.softmaxes = 1 if prior is None else len(prior)


class _Scripted(_Sizes):
    """`model.pt`."""

    def __init__(self, path: Path, device: torch.device) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            self._module = torch.jit.load(path, map_location=device)
        super().__init__(dict(self._module.named_parameters()))

    def advance(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with _interpreted():
            hidden, after = self._module(ids.to(state.device), lengths.to(state.device), state)
        return hidden, after

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        with _interpreted():
            likely: Tensor = self._module.log_probabilities(hidden)
        return likely


class _Exported(_Sizes):
    """`model.pt2` and `head.pt2`."""

    def __init__(self, step: torch.nn.Module, head: torch.nn.Module) -> None:
        parameters = dict(step.named_parameters())
        super().__init__(parameters | {f"decoder.{name}": value for name, value in head.named_parameters()})
        self._step, self._head, self._table = step, head, parameters["embedding.weight"]

    def advance(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        ids, lengths = ids.to(state.device), lengths.to(state.device)
        outputs = []
        for t in range(ids.shape[1]):
            hidden, state = self._step(ids[:, t : t + 1], (lengths > t).int(), state)
            outputs.append(hidden)
        return torch.cat(outputs, dim=1), state

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        likely: Tensor = self._head(hidden, self._table)
        return likely


@contextmanager
def _interpreted() -> Iterator[None]:
    """Run TorchScript as it is: it would be compiled anew, in a tenth of a second and more, for each new shape."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # torch.jit lists no names
        yield


def _program(path: Path, device: torch.device) -> torch.nn.Module:
    """The module of an exported program."""
    _refuse_pickles(path)
    logger = logging.getLogger("torch.export")
    level = logger.level
    # It writes a traceback of what it then raises.
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # torch before 2.13 reads weights from bytes and warns of that, once a process. Nothing writes to them.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            module = torch.export.load(path).module()
    finally:
        logger.setLevel(level)
    return module.to(device)


def _refuse_pickles(path: Path) -> None:
    """Refuse an exported program that holds what torch would give to Python's pickle, run or evaluate."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        folders = {name.partition("/")[0] for name in names}
        entries = {name.partition("/")[2]: name for name in names}
        strange = [entry for entry in entries if not _ENTRIES.fullmatch(entry)]
        if len(folders) != 1 or len(entries) != len(names) or strange:
            raise EngineError(f"holds more than an exported program: {', '.join(strange) or 'a name twice'}")
        if (sample := entries.get("data/sample_inputs/model.pt")) and archive.getinfo(sample).file_size:
            raise EngineError("holds sample inputs, which are a pickle")
        for entry, name in entries.items():
            if entry.endswith(".json"):
                _refuse_code(json.loads(archive.read(name)))


def _refuse_code(content: Any) -> None:
    """Look for pickled tensors and for expressions that are not of shapes, at any depth."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("use_pickle"):
                raise EngineError("holds a pickle")
            words = re.findall(r"\w+", str(part.get("expr_str", "")))
            if strange := [word for word in words if not word.isdecimal() and not _WORDS.fullmatch(word)]:
                raise EngineError(f"holds an expression with {strange[0]!r}, which is not of shapes")
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _listed(by_name: Mapping[str, Path], name: str) -> Path:
    if name not in by_name:
        raise EngineError(f"the bundle lists no {name}; export it again")
    return by_name[name]


def _loaded(path: Path, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except EngineError as error:
        raise EngineError(f"{path} {error}; {_MEND}") from None
    except Exception as error:  # What a damaged file makes torch raise shares no base but Exception.
        written = _written_by(path)
        if written not in (None, torch.__version__):
            raise EngineError(
                f"{path} was written by torch {written} and cannot be loaded by torch {torch.__version__} "
                f"({reason_of(error)}); export the bundle again with this torch, or install that one"
            ) from error
        raise EngineError(
            f"{path} cannot be loaded by torch {torch.__version__}: {reason_of(error)}; {_MEND}"
        ) from error


def _written_by(path: Path) -> str | None:
    """The version of torch that wrote an artefact, where that can still be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(f"/extra/{VERSION}"))
            return archive.read(name).decode()
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError):
        return None
