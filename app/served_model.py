"""What is served: a bundle whose sums were checked, its vocabulary, and how to build its engine.

Boundary: from settings to a model in memory; nothing of HTTP. The engine is built later, on the thread that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.schemas import ModelIdentity
from app.settings import Settings
from model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from app.engines.base import Engine


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

    def identity(self, engine: Engine) -> ModelIdentity:
        """What every answer of this model on this engine carries."""
        return ModelIdentity(name=self.name, sha256=self.sha256, engine=engine.name, precision=engine.precision)


def open_model(settings: Settings) -> ServedModel:
    """Check every file of the bundle that the settings name and read its vocabulary; `BundleError` where it is broken.

    Takes a fraction of a second; the engine's library is loaded only when the engine is built.
    """
    from model.bundle import open_bundle  # noqa: PLC0415 - keeps `python -m app --help` from reading what it never uses

    bundle = open_bundle(settings.bundle)
    manifest = bundle.manifest.model_dump(mode="json")

    def build_engine() -> Engine:
        from app.engines import load_engine  # noqa: PLC0415 - loads the engine's library, on the engine's thread

        return load_engine(bundle, settings.precision, settings.threads, settings.engine)

    return ServedModel(
        name=manifest["name"],
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
    )
