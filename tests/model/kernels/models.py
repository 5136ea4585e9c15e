"""Small language models for the tests of packed ones."""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import ModelConfig
from model.language_model import LanguageModel

SIZES: dict[str, object] = {"vocabulary_size": 150, "embedding_size": 16, "hidden_size": 24, "layers": 3, "groups": 4}


def language_model(**changes: object) -> LanguageModel:
    """A model with random weights, not so small that its predictions are all alike."""
    torch.manual_seed(7)
    model = LanguageModel(ModelConfig.from_dict(SIZES | changes)).eval()
    torch.nn.init.normal_(model.embedding.weight)
    torch.nn.init.normal_(model.decoder.bias)
    return model


@torch.no_grad()
def read(model: LanguageModel, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """What `FusedModel.advance` is to give, by the model itself, a row at a time; zeros beyond a row's length."""
    hidden = torch.zeros(*ids.shape, model.config.embedding_size)
    after = state.clone()
    for row, length in enumerate(lengths.tolist()):
        if length:
            hidden[row, :length], after[row] = (x[0] for x in model(ids[row : row + 1, :length], state[row : row + 1]))
    return hidden, after
