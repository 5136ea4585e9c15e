"""What is served: a bundle whose sums were checked, its vocabulary, and how to build its engine.

Boundary: from settings to a model in memory; nothing of HTTP. The engine is built later, on the thread that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.schemas import ModelIdentity
from app.settings import Settings
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from app.engines.base import Engine


@dataclass(frozen=True)
class Source:
    """Where a model is from and how it is to be run."""

    name: str | None
    """What it is called; None for the bundle's own name."""
    bundle: Path
    engine: str
    precision: str
    threads: int


@dataclass(frozen=True)
class ServedModel:
    """A model card, a vocabulary and an engine to come. `sha256` names the bundle."""

    name: str
    sha256: str
    vocabulary: Vocabulary
    card: dict[str, Any]
    """The parts of the manifest that `GET /model` shows: architecture, metrics, training, licence, attribution, use."""
    build_engine: Callable[[], Engine]
    """Builds the engine anew at every call; `EngineError` where bundle or machine lack what the settings name."""
    source: Source | None = None
    """Where it was opened, if from a bundle."""

    def is_of(self, source: Source) -> bool:
        """Whether this is what opening a source gives now; `BundleError` where it cannot be opened."""
        from model.bundle import bundle_sha256  # noqa: PLC0415 - as in `open_source`

        return self.source == source and self.sha256 == bundle_sha256(source.bundle)

    def identity(self, engine: Engine) -> ModelIdentity:
        """What every answer of this model on this engine carries."""
        return ModelIdentity(name=self.name, sha256=self.sha256, engine=engine.name, precision=engine.precision)


def default_source(settings: Settings) -> Source:
    """Where the model is from that answers unless another is named; `ConfigurationError` where its file is wrong."""
    if settings.models is None:
        return Source(None, settings.bundle, settings.engine, settings.precision, settings.threads)
    from app.models.file import read_models  # noqa: PLC0415 - is made of what is here

    plan = read_models(settings.models, settings)
    return plan.sources[plan.default]


def open_model(settings: Settings, given: ServedModel | None = None) -> ServedModel:
    """Open the bundle that the settings name, or the default one of their file of models, unless `given` is that.

    Takes a fraction of a second; the engine's library is loaded only when the engine is built. Raises `BundleError`
    where the bundle is broken, `ConfigurationError` where the file is.
    """
    return open_source(default_source(settings), given)


def open_source(source: Source, given: ServedModel | None = None) -> ServedModel:
    """Check every file of a bundle and read its vocabulary, unless `given` is it; `BundleError` where it is broken."""
    if given is not None and given.is_of(source):
        return given
    from model.bundle import open_bundle  # noqa: PLC0415 - keeps `python -m app --help` from reading what it never uses

    bundle = open_bundle(source.bundle)
    manifest = bundle.manifest.model_dump(mode="json")

    def build_engine() -> Engine:
        from app.engines import load_engine  # noqa: PLC0415 - loads the engine's library, on the engine's thread

        return load_engine(bundle, source.precision, source.threads, source.engine)

    return ServedModel(
        name=source.name or manifest["name"],
        sha256=bundle.sha256,
        vocabulary=bundle.vocabulary(),
        card={
            "architecture": manifest["model"],
            "metrics": manifest["metrics"],
            "training": manifest["training"],
            "licence": manifest["licence"],
            "attribution": manifest["attribution"],
            "intended_use": manifest["intended_use"],
            "limitations": manifest["limitations"],
        },
        build_engine=build_engine,
        source=source,
    )
