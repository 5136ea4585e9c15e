"""One training run as its record tells it (`training.json`), checked, and what follows from it.

Boundary: a record in, plain data out. How runs are shown is `training.results` and `training.pictures`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.checkpoint import RECORD, read_record
from model.config import ModelConfig
from model.errors import CheckpointError
from model.language_model import outline
from training.corpus import KNOWN
from training.evaluate import measure_of
from training.presets import PRESETS
from training.published import PUBLISHED, Published, find_published
from training.recipe import Recipe

Perplexity = Annotated[float, Field(ge=1)]
Count = Annotated[int, Field(ge=1, lt=2**63)]

_ORDER = {preset: index for index, preset in enumerate(dict.fromkeys(entry.preset for entry in PUBLISHED))}


class _Part(BaseModel):
    """Part of a record. What is not read here is left alone: records grow."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Point(_Part):
    """One epoch of the learning curve; validation as measured in passing (in pieces), not as reported."""

    epoch: Count
    train_perplexity: Perplexity
    valid_perplexity: Perplexity


class RecipeRecord(_Part):
    """How the run was trained: its epochs are read, and the rest tells recipes apart."""

    model_config = ConfigDict(extra="allow")

    epochs: Count


class DataRecord(_Part):
    """What the run read: the corpus's name, and the sum of each split."""

    name: str
    sha256: dict[str, str]
    lines_joined: bool = False


class StartedFrom(_Part):
    """The checkpoint whose weights a warm restart began with: its preset, and the sum of its weights."""

    preset: str
    sha256: str


class EvaluationRecord(_Part):
    """One result of `pru evaluate --json`, for instance of a test text under dynamic evaluation."""

    model_config = ConfigDict(extra="allow")

    data: str
    """A corpus and its split, `ptb test`, or a file."""
    tokens: Count
    evaluation: str
    parameters: dict[str, int | float | str]
    recurrence: str | None = None
    figure: Perplexity
    """The perplexity, which the record holds under the name of its own measure."""

    @model_validator(mode="before")
    @classmethod
    def _read_its_own_measure(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        measure = measure_of(str(data.get("evaluation")))
        if measure not in data:
            raise ValueError(f"{measure} is missing")
        return data | {"figure": data[measure]}


class RunRecord(_Part):
    """A run, finished or not."""

    preset: str
    model: ModelConfig
    recipe: RecipeRecord
    data: DataRecord
    seed: int
    parameters: Count
    curve: list[Point]
    seconds: Annotated[float, Field(ge=0)]
    peak_bytes: Count | None = None
    """Most memory that the process used."""
    finished: bool
    hardware: dict[str, str | int | None]
    perplexity: dict[str, Perplexity] = {}
    """Of each split (`valid`, and `test` where there is one), static, on one stream; a finished run's only."""
    recurrence: str | None = None
    """The arithmetic of the recurrence that `perplexity` was measured by, where it was not the weights' own."""
    evaluations: list[EvaluationRecord] = []
    started_from: StartedFrom | None = None

    @model_validator(mode="after")
    def _finished_runs_are_measured(self) -> Self:
        if self.finished and "valid" not in self.perplexity:
            raise ValueError("the run is finished, but perplexity.valid is missing")
        return self

    @property
    def corpus(self) -> str | None:
        """The known corpus that the run read, by its sums and not by its name alone; none for other text."""
        known = KNOWN.get(self.data.name)
        return known.name if known is not None and self.data.sha256 == known.sha256 else None

    @property
    def published(self) -> Published | None:
        """What the paper reports of the same preset on the same corpus."""
        return find_published(self.preset, self.corpus) if self.corpus else None

    @property
    def changes(self) -> dict[str, Any]:
        """What the run had where its preset has other settings for this corpus, named as `--set` names them."""
        preset = PRESETS.get(self.preset)
        if preset is None:
            return {}
        try:
            recipe = Recipe.model_validate(self.recipe.model_dump())
        except ValidationError:
            return {}  # Of an earlier version, whose recipes had other settings.
        own = {"recipe": preset.recipe_for(self.corpus), "model": preset.config(self.model.vocabulary_size)}
        ran = {"recipe": recipe, "model": self.model}
        return {
            path: value
            for part in ran
            for path, value in _differences(ran[part].model_dump(mode="json"), own[part].model_dump(mode="json"), part)
        }

    @property
    def changed(self) -> bool:
        """Whether the architecture or the recipe is not what the preset has for this corpus."""
        return bool(self.changes)

    @property
    def is_papers(self) -> bool:
        """Whether the run is a row of the paper as it stands: its model by its recipe, and not by another schedule."""
        return self.published is not None and self.published.preset == self.preset and not self.changed

    @property
    def recurrent_parameters(self) -> int:
        """Parameters of the recurrent layers, biases included; the embedding and the decoder's bias are the rest."""
        return _recurrent_parameters(self.model)

    @property
    def reduction(self) -> float:
        """Share of recurrent parameters saved against the LSTM of the same sizes (the paper's Figure 5)."""
        lstm = self.model.model_copy(update={"groups": 1, "levels": 1})
        return 1 - self.recurrent_parameters / _recurrent_parameters(lstm)

    def repeats(self, other: RunRecord) -> bool:
        """Whether the two runs can differ by their seeds alone (and by the machines they ran on)."""
        return all(
            getattr(self, field) == getattr(other, field) for field in ("preset", "model", "recipe", "data")
        ) and (self.started_from and self.started_from.preset) == (other.started_from and other.started_from.preset)


def _differences(ran: Any, own: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths to values of `ran` that `own` has otherwise."""
    if isinstance(ran, dict) and isinstance(own, dict):
        for name, value in ran.items():
            yield from _differences(value, own[name], f"{path}.{name}")
    elif ran != own:
        yield path, ran


def _recurrent_parameters(config: ModelConfig) -> int:
    return sum(parameter.numel() for parameter in outline(config).layers.parameters())


def read_run(folder: Path) -> RunRecord:
    """The run that a folder records; `CheckpointError` that names the file where there is no such record."""
    record = read_record(folder)
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{folder / RECORD} holds half a character, as in \\ud800; restore the file") from None
    try:
        return RunRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise CheckpointError(
            f"{folder / RECORD} is no record of a run ({where}: {first['msg']}); give a folder that "
            "`pru train` wrote, or restore the file"
        ) from None


def in_order(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs in the paper's order, the others by name after them, the seeds of one run's kind together."""

    def key(record: RunRecord) -> tuple[Any, ...]:
        entry = record.published
        place = _ORDER[entry.preset] if entry else len(_ORDER)
        return place, record.preset, record.data.name, record.recipe.model_dump_json(), record.seed, record.seconds

    return sorted(records, key=key)


def by_kind(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """The runs in order, those together that repeat one another."""
    kinds: list[list[RunRecord]] = []
    for record in in_order(records):
        for kind in kinds:
            if kind[0].repeats(record):
                kind.append(record)
                break
        else:
            kinds.append([record])
    return kinds
