"""A small corpus written for these tests, and recipes that train on it in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ModelConfig
from model.conventions import Convention
from model.dropout import Dropout
from model.vocabulary import Vocabulary
from training.data import Data
from training.recipe import Optimizer, Recipe

SENTENCES = [
    "the cat sat on the mat and looked at the dog",
    "the dog sat on the floor and looked at the cat",
    "a bird sang in the tree while the cat slept",
    "in the morning the dog ran to the tree and the bird flew away",
    "the cat and the dog slept on the mat in the evening",
]


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder with three splits."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, repeats in (("train", 12), ("valid", 3), ("test", 3)):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES * repeats) + "\n")
    return folder


@pytest.fixture
def data() -> Data:
    """The same corpus as ids."""
    vocabulary = Vocabulary.from_lines(SENTENCES, Convention.WIKITEXT)
    ids = vocabulary.encode("\n".join(SENTENCES))
    return Data("small", {"train": "0" * 64}, vocabulary, np.tile(ids, 12), ids, ids)


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "optimizer": Optimizer.SGD,
        "learning_rate": 5,
        "epochs": 2,
        "batch_size": 4,
        "bptt": 10,
        "dropout": Dropout.standard(0.2),
        "clip": 0.25,
        "bfloat16": False,
    }
    return Recipe(**(settings | changes))


def config(vocabulary: Vocabulary, **changes: Any) -> ModelConfig:
    settings = {"embedding_size": 8, "hidden_size": 16, "layers": 2, "groups": 4, "levels": 2}
    return ModelConfig.from_dict(settings | {"vocabulary_size": len(vocabulary)} | changes)
