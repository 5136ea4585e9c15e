"""From a checkpoint to a validated bundle, whole or not at all.

Boundary: folders in and out. Graphs are built by `export.graph`, judged by `export.validate`; the terminal is above.
"""

from __future__ import annotations

import datetime
import os
import platform
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.arithmetic import Arithmetic
from export.builder import WeightStore
from export.graph import build_head, build_steps
from export.quantize import Precision, arithmetic_of
from export.validate import (
    Measured,
    OnnxReader,
    TorchReader,
    check_cost,
    check_signatures,
    check_values,
    perplexity,
)
from export.weights import FoldedModel, fold_model
from model.arguments import Ids
from model.bundle import FORMAT_VERSION, MANIFEST, TOKENIZER, Artefact, Manifest, Metric, sums_of, write_manifest
from model.checkpoint import load_checkpoint, load_weights
from model.config import ModelConfig
from model.errors import BundleError, ExportError, PRUError
from model.files import read_json, read_text, sync_folder, write_atomically
from model.language_model import LanguageModel
from model.machine import processor_name
from model.onnx_model import HEAD, RUNTIME_VERSION, OnnxModel, steps_name
from model.vocabulary import Vocabulary

STEP_LENGTHS = (1, 4, 16, 32)
"""Steps of the unrolled graphs: one for a keystroke; the longest is 2 to 3 times faster a token for one text alone."""
WEIGHTS = "weights.bin"
OWN_PASSAGES, OWN_LENGTH = 16, 128
"""Passages, and tokens of each, that a model writes to be validated on."""

ShowProgress = Callable[[str, int, int], None]
"""Told of a stage's name, how many tokens it reads, and how many more it has read."""


@dataclass(frozen=True)
class Text:
    """What a bundle is validated on: its name, and its ids read as one stream. Without a name it is no real text."""

    name: str | None
    ids: Ids


@dataclass(frozen=True)
class Options:
    """What to export, and how."""

    name: str
    texts: Sequence[Path] = ()
    text_name: str | None = None
    precisions: Sequence[Precision] = tuple(Precision)
    tokens: int = 25_000
    max_cost: float = 0.002
    threads: int = 1
    licence: str | None = None
    attribution: str | None = None
    replace: bool = False


def read_texts(paths: Sequence[Path], name: str | None, vocabulary: Vocabulary) -> Text:
    """Files as one text, every file ended by `<eos>`."""
    parts = []
    for path in paths:
        content = read_text(path, ExportError)
        if content.strip():
            parts += [vocabulary.tokenise(content).ids, np.array([vocabulary.eos_id], np.int32)]
    if not parts:
        raise ExportError(f"{paths[0]} holds no text; give another --text")
    return Text(name or " + ".join(path.name for path in paths), np.concatenate(parts))


@torch.inference_mode()
def write_text(model: LanguageModel, eos_id: int) -> Text:
    """What the model itself writes, for where there is no text at hand: drawn from its own distribution, seed 0.

    It is as likely to the model as text of its corpus is, so it shows whether the graphs agree with the model and what
    int8 costs; how good the model is it does not show.
    """
    generator = torch.Generator().manual_seed(0)
    state = model.initial_state(OWN_PASSAGES)
    words = [torch.full((OWN_PASSAGES, 1), eos_id)]
    for _ in range(OWN_LENGTH):
        hidden, state = model(words[-1], state)
        words.append(model.log_probabilities(hidden[:, -1]).exp().multinomial(1, generator=generator))
    ids: Ids = torch.cat(words[1:], dim=1).flatten().numpy().astype(np.int32)
    return Text(None, ids)


def export_bundle(
    checkpoint: Path, out: Path, options: Options, progress: ShowProgress
) -> tuple[Manifest, dict[Precision, Measured]]:
    """Export `checkpoint` to the bundle `out`; return its manifest and what each precision was found to do.

    Raises `ExportError` where `out` is in the way or a precision is refused, `CheckpointError` for a bad checkpoint.
    """
    _check_out(out, options.replace)
    reference, vocabulary, record = load_checkpoint(checkpoint)
    if options.texts:
        text = read_texts(options.texts, options.text_name, vocabulary)
    else:
        text = write_text(reference, vocabulary.eos_id)
    ids = text.ids[: options.tokens]
    model = fold_model(reference.config, load_weights(checkpoint))
    count = len(ids)
    expected = perplexity(TorchReader(reference), ids, vocabulary.eos_id, partial(progress, "reference", count))
    with _new_folder(out) as folder:
        vocabulary.save(folder / TOKENIZER)
        measured: dict[Precision, Measured] = {}
        for precision in options.precisions:
            files = write_graphs(model, arithmetic_of(precision, model.table), folder / "onnx" / precision)
            exported = OnnxModel(files, options.threads)
            check_signatures(exported, model.config)
            differences = check_values(exported, precision, reference, ids)
            found = perplexity(OnnxReader(exported), ids, vocabulary.eos_id, partial(progress, precision, count))
            measured[precision] = Measured(differences, found, expected)
            check_cost(measured[precision], precision, options.max_cost)
        manifest = _manifest(folder, reference.config, vocabulary, record, text.name, count, measured, options)
        write_manifest(folder, manifest)
    return manifest, measured


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


def _manifest(
    folder: Path,
    config: ModelConfig,
    vocabulary: Vocabulary,
    record: dict[str, Any],
    text_name: str | None,
    tokens: int,
    measured: dict[Precision, Measured],
    options: Options,
) -> Manifest:
    sums = sums_of(folder)
    data = text_name or "text the model wrote"
    circumstances = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": {"machine": platform.machine(), "processor": processor_name(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": RUNTIME_VERSION,
            "torch": torch.__version__,
        },
    }
    artefacts = {
        precision: Artefact(
            files=tuple(name for name in sums if name.startswith(f"onnx/{precision}/")),
            validated={**circumstances, "data": data, "tokens": tokens, **found.as_dict()},
        )
        for precision, found in measured.items()
    }
    return Manifest(
        format_version=FORMAT_VERSION,
        name=options.name,
        model=config,
        convention=vocabulary.convention,
        files=sums,
        engines={"onnx": artefacts},
        metrics=tuple(
            Metric(data=text_name, precision=precision, perplexity=found.perplexity, tokens=tokens)
            for precision, found in measured.items()
            if text_name
        ),
        training={key: value for key, value in record.items() if key != "model"},
        licence=options.licence,
        attribution=options.attribution,
    )


def _check_out(out: Path, replace: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not _is_bundle(out):
        raise ExportError(f"{out} exists and is not a bundle; remove it or give another --out")
    if not replace:
        raise ExportError(f"{out} is already a bundle; replace it with --force or give another --out")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle of any version, damaged or not."""
    try:
        content = read_json(folder / MANIFEST, BundleError)
    except PRUError:
        return False
    return not folder.is_symlink() and isinstance(content, dict) and {"format_version", "engines"} <= content.keys()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends, and vanishes when it fails."""
    mark = secrets.token_hex(4)
    beside, replaced = (out.with_name(f".{out.name}.{mark}.{kind}") for kind in ("partial", "replaced"))
    try:
        beside.mkdir(parents=True)
        yield beside
        for folder in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
            sync_folder(folder)
        with _uninterrupted():
            _take_place(beside, out, replaced)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}; nothing was left behind") from None
    finally:
        with _uninterrupted():
            shutil.rmtree(beside, ignore_errors=True)


def _take_place(new: Path, out: Path, replaced: Path) -> None:
    """Rename `new` to `out` and delete what was there, which until then is called `replaced`.

    An `OSError` means that `out` is as it was; once the new folder is in place, an error says that it is.
    """
    if out.exists():
        out.rename(replaced)
    try:
        new.rename(out)
    except OSError:
        if replaced.exists():
            replaced.rename(out)
        raise
    try:
        sync_folder(out.parent)
    except OSError as error:
        raise ExportError(
            f"{out} is the new bundle, but {out.parent} cannot be synced: {error.strerror or error}; "
            "mend that and export again, or the bundle may be lost when the machine stops"
        ) from None
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C come to nothing for the moment that the block takes: half of it must not be left."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C comes to the main thread alone.
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
