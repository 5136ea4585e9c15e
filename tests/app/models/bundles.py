"""Bundles without artefacts, whose engines are made in numpy: a folder to open, check and build in a millisecond."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.logs import make_logger
from app.main import create_app
from app.settings import LogLevel, Settings
from model.bundle import Bundle, Manifest, open_bundle, sums_of, write_manifest
from model.config import ModelConfig
from model.conventions import Convention
from model.vocabulary import Vocabulary
from tests.app.fakes import LogLines, NumpyEngine
from tests.app.memory_store import MemoryStore
from tests.app.serving import until
from tests.app.talking import post

SEA = ["the harbour is small , but the boats that leave the harbour are not ."]
HILLS = ["the valley is wide and the hills are steep , but the paths lead over the hills all the same ."]
"""Texts whose words differ."""


def write_bundle(folder: Path, lines: list[str], version: int = 1) -> str:
    """Write a bundle of the lines' words; its SHA-256, from which its engine's weights follow."""
    folder.mkdir(parents=True)
    vocabulary = Vocabulary.from_lines(lines, Convention.WIKITEXT)
    vocabulary.save(folder / "tokenizer.json")
    config = ModelConfig(vocabulary_size=len(vocabulary), embedding_size=8, hidden_size=8, layers=1)
    manifest = Manifest(
        format_version=2,
        name="unnamed",
        model=config,
        convention=Convention.WIKITEXT,
        files=sums_of(folder),
        engines={},
        metrics=(),
        training={"version": version},
        licence=None,
        attribution=None,
    )
    write_manifest(folder, manifest)
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


class SeededEngine(NumpyEngine):
    """Weights that follow from the bundle's sum. Each `advance` calls `before`, as its base's does."""

    def __init__(self, bundle: Bundle, before: Callable[[], None] | None = None) -> None:
        super().__init__(bundle.manifest.model.vocabulary_size, before=before)
        generator = np.random.default_rng(int(bundle.sha256[:8], 16))
        self.bias = generator.normal(0, 1, self.vocabulary_size).astype(np.float32)


def load(bundle: Bundle, *_: Any) -> NumpyEngine:
    """In the place of `app.engines.load_engine`."""
    return SeededEngine(bundle)


def likeliest(folder: Path, text: str, k: int = 5) -> list[tuple[str, Any]]:
    """The k likeliest tokens after a text and their log-probabilities, computed without the service."""
    bundle = open_bundle(folder)
    engine, vocabulary = SeededEngine(bundle), bundle.vocabulary()
    state = np.zeros(engine.state_size, np.float32)
    for token_id in [vocabulary.eos_id, *vocabulary.tokenise(text).ids.tolist()]:
        hidden, state = engine.step(token_id, state)
    values = engine.log_probabilities(hidden[None])[0]
    shown = [token_id for token_id in np.argsort(-values, kind="stable") if not vocabulary.is_special(int(token_id))]
    return [(vocabulary.word_of(int(token_id)), pytest.approx(values[token_id], rel=1e-3)) for token_id in shown[:k]]


def shown(answer: dict[str, Any]) -> list[tuple[str, float]]:
    """Tokens and log-probabilities that an answer predicts."""
    return [(it["token"], it["log_probability"]) for it in answer["predictions"]]


def answering(client: TestClient) -> str:
    """The bundle behind the default."""
    sha256: str = post(client, "/predict", text="the")["model"]["sha256"]
    return sha256


def write_models(path: Path, default: str, **bundles: str) -> None:
    """Write a file of models in one step, as an operator's tool should."""
    entries = "".join(f'[models."{name}"]\nbundle = "{bundle}"\n' for name, bundle in bundles.items())
    beside = path.with_suffix(".new")
    beside.write_text(f'default = "{default}"\n{entries}')
    os.replace(beside, path)


@dataclass
class House:
    """A folder with bundles and a file of models, and a service of it."""

    folder: Path
    logs: LogLines = field(default_factory=LogLines)
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def file(self) -> Path:
        return self.folder / "models.toml"

    def bundle(self, name: str, lines: list[str] = SEA, version: int = 1) -> str:
        """Write a bundle; its SHA-256."""
        return write_bundle(self.folder / name, lines, version)

    def name(self, default: str, **bundles: str) -> None:
        """Write the file."""
        write_models(self.file, default, **bundles)

    def app(self, **settings: Any) -> FastAPI:
        """An application that serves what the file names."""
        logger = make_logger(LogLevel.DEBUG, self.logs)
        return create_app(Settings(models=self.file, **settings), logger=logger, store=self.store)

    @contextmanager
    def serving(self, **settings: Any) -> Iterator[TestClient]:
        """A service that has read the file, and a client of it."""
        with TestClient(self.app(**settings)) as client:
            until(lambda: client.get("/health/ready").status_code == 200)
            names = set(tomllib.loads(self.file.read_text())["models"])
            until(lambda: {it["id"] for it in client.get("/v1/models").json()["data"]} >= names)
            yield client

    def troubles(self) -> list[dict[str, Any]]:
        """What the log says cannot be served."""
        return self.logs.events("cannot be served, and what was before goes on")
