"""What a bundle is validated on: text of the user's, or what the model itself writes.

Boundary: files, a vocabulary and a model in, ids out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.arguments import Ids
from model.errors import ExportError
from model.files import read_text
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary

OWN_PASSAGES, OWN_LENGTH = 16, 128
"""Passages, and tokens of each, that a model writes to be validated on."""


@dataclass(frozen=True)
class Text:
    """What a bundle is validated on: its name, and its ids read as one stream. Without a name it is no real text."""

    name: str | None
    ids: Ids


def text_for(paths: Sequence[Path], name: str | None, model: LanguageModel, vocabulary: Vocabulary) -> Text:
    """The text in `paths`, or where there are none what the model writes."""
    return read_texts(paths, name, vocabulary) if paths else write_text(model, vocabulary.eos_id)


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
