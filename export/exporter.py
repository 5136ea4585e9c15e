"""From a checkpoint to a validated bundle, whole or not at all; and a bundle that is there, validated on this machine.

Boundary: folders in and out. Artefacts are written and loaded by `export.forms`, judged by `export.validate`; the
terminal is above.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from export.folders import check_out, mend, new_folder, uninterrupted
from export.forms import FORMS, Form, Source, chosen_forms
from export.texts import Text, text_for
from export.validate import ExportedReader, Measured, ReferenceReader, check_cost, check_values, perplexity
from model.bundle import (
    FORMAT_VERSION,
    TOKENIZER,
    Artefact,
    Bundle,
    Manifest,
    Metric,
    Validation,
    open_bundle,
    sums_of,
    write_manifest,
)
from model.checkpoint import load_checkpoint
from model.errors import ExportError
from model.language_model import LanguageModel
from model.machine import processor_name
from model.torch_model import find_device
from model.vocabulary import Vocabulary

ShowProgress = Callable[[str, int, int], None]
"""Told of a stage's name, how many tokens it reads, and how many more it has read."""

Results = dict[Form, Measured]


@dataclass(frozen=True)
class Conditions:
    """What artefacts are validated on, and how much they may cost."""

    texts: Sequence[Path] = ()
    text_name: str | None = None
    tokens: int = 25_000
    max_cost: float = 0.002
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Options(Conditions):
    """What to export, and how. Without precisions, it is every one that the engines have."""

    name: str = "model"
    engines: Sequence[str] = ("onnx",)
    precisions: Sequence[str] = ()
    licence: str | None = None
    attribution: str | None = None
    intended_use: str | None = None
    limitations: str | None = None
    replace: bool = False


class _Judge:
    """Validates artefacts against one checkpoint's model, under the same conditions."""

    def __init__(
        self, reference: LanguageModel, vocabulary: Vocabulary, conditions: Conditions, progress: ShowProgress
    ) -> None:
        self._reference, self._eos_id = reference, vocabulary.eos_id
        self._conditions, self._progress = conditions, progress
        self.text: Text = text_for(conditions.texts, conditions.text_name, reference, vocabulary)
        self._ids = self.text.ids[: conditions.tokens]
        self.tokens = len(self._ids)
        show = partial(progress, "reference", self.tokens)
        self._expected = perplexity(ReferenceReader(reference), self._ids, self._eos_id, show)

    def measure(self, form: Form, files: Sequence[Path]) -> Measured:
        """Load an artefact and measure it; `ExportError` or `EngineError` where it is refused."""
        conditions = self._conditions
        models = form.load(files, self._reference.config, conditions.device, conditions.threads)
        differences, *_ = (check_values(one, form.name, form.limits, self._reference, self._ids) for one in models)
        show = partial(self._progress, form.name, self.tokens)
        found = perplexity(ExportedReader(models[0]), self._ids, self._eos_id, show)
        measured = Measured(differences, found, self._expected)
        check_cost(measured, form.name, form.limits, conditions.max_cost)
        return measured

    def record(self, form: Form, measured: Measured) -> Validation:
        """For the manifest."""
        return Validation(
            device=self._conditions.device,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            hardware=_hardware(self._conditions.device),
            versions=form.versions(self._conditions.device),
            data=self.text.name or "text the model wrote",
            tokens=self.tokens,
            **asdict(measured),
            cost=measured.cost,
        )

    def metrics(self, results: Results) -> tuple[Metric, ...]:
        """What the artefacts are worth on the text, if that has a name: if it is real."""
        name, tokens = self.text.name, self.tokens
        if name is None:
            return ()
        return tuple(
            Metric(data=name, engine=form.engine, precision=form.precision, perplexity=found.perplexity, tokens=tokens)
            for form, found in results.items()
        )


def export_bundle(checkpoint: Path, out: Path, options: Options, progress: ShowProgress) -> tuple[Manifest, Results]:
    """Export `checkpoint` to the bundle `out`; return its manifest and what each artefact was found to do.

    Raises `ExportError` where `out` is in the way or an artefact is refused, `CheckpointError` for a bad checkpoint.
    """
    mend(out)
    check_out(out, options.replace)
    forms = chosen_forms(options.engines, options.precisions)
    reference, vocabulary, record = load_checkpoint(checkpoint)
    source = Source(checkpoint, reference)
    judge = _Judge(reference, vocabulary, options, progress)
    with new_folder(out) as folder:
        vocabulary.save(folder / TOKENIZER)
        results = {form: judge.measure(form, form.write(source, folder / form.folder)) for form in forms}
        sums = sums_of(folder)
        engines: dict[str, dict[str, Artefact]] = {}
        for form, measured in results.items():
            files = tuple(name for name in sums if name.startswith(f"{form.folder}/"))
            artefact = Artefact(files=files, validated=(judge.record(form, measured),))
            engines.setdefault(form.engine, {})[form.precision] = artefact
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=options.name,
            model=reference.config,
            convention=vocabulary.convention,
            files=sums,
            engines=engines,
            metrics=judge.metrics(results),
            training={key: value for key, value in record.items() if key != "model"},
            licence=options.licence,
            attribution=options.attribution,
            intended_use=options.intended_use,
            limitations=options.limitations,
        )
        write_manifest(folder, manifest)
    return manifest, results


def validate_bundle(
    folder: Path, checkpoint: Path, engines: Sequence[str], conditions: Conditions, progress: ShowProgress
) -> tuple[Manifest, Results]:
    """Validate a bundle's artefacts on this machine's device, all or those of some engines, and record it.

    A record takes the place of an earlier one from the same hardware and data. Either all are accepted and the manifest
    is replaced, or nothing changes. Raises `BundleError` and `CheckpointError`, and `ExportError` or `EngineError`
    where the checkpoint is not the bundle's or an artefact is refused.
    """
    find_device(conditions.device)
    bundle = open_bundle(folder)
    forms = _forms_of(bundle, engines, conditions.device)
    reference, vocabulary, _ = load_checkpoint(checkpoint)
    if (reference.config, vocabulary.words) != (bundle.manifest.model, bundle.vocabulary().words):
        raise ExportError(f"{folder} was not made of {checkpoint}; give the checkpoint that it was exported from")
    judge = _Judge(reference, vocabulary, conditions, progress)
    held = {engine: dict(artefacts) for engine, artefacts in bundle.manifest.engines.items()}
    results: Results = {}
    for form in forms:
        artefact = held[form.engine][form.precision]
        results[form] = judge.measure(form, bundle.paths(artefact))
        record = judge.record(form, results[form])
        others = [one for one in artefact.validated if _circumstances(one) != _circumstances(record)]
        held[form.engine][form.precision] = artefact.model_copy(update={"validated": (*others, record)})
    manifest = bundle.manifest.model_copy(update={"engines": held})
    with uninterrupted():
        write_manifest(folder, manifest)
    return manifest, results


def _forms_of(bundle: Bundle, engines: Sequence[str], device: str) -> list[Form]:
    """The artefacts of a bundle that can be validated on a device: all, or those of some engines."""
    held = bundle.manifest.engines
    if lacking := [name for name in engines if name not in held]:
        raise ExportError(f"{bundle.folder} holds nothing for {lacking[0]}; it holds {', '.join(held)}")
    named = [form for form in FORMS if form.engine in (engines or held) and form.precision in held.get(form.engine, {})]
    forms = [form for form in named if device in form.devices]
    if not forms:
        listed = ", ".join(form.name for form in named)
        raise ExportError(f"{bundle.folder} holds nothing that is validated on {device} (it holds {listed})")
    return forms


def _circumstances(record: Validation) -> tuple[object, ...]:
    return record.device, record.hardware, record.data


def _hardware(device: str) -> dict[str, Any]:
    hardware: dict[str, Any] = {"machine": platform.machine(), "processor": processor_name(), "cores": os.cpu_count()}
    if device == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware
