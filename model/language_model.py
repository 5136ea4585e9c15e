"""The language model: tied embedding, dropout, a PRU stack and a softmax over the vocabulary.

Boundary: word ids and packed state in, hidden vectors, state and log-probabilities out. Text lives in
`model.vocabulary`, losses in `training`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.config import ModelConfig
from model.errors import ConfigurationError
from model.pru import PRU


class Decoder(nn.Module):
    """The softmax layer. Its weight is the embedding's, so it owns a bias alone."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    def forward(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Logits `[..., V]` from hidden `[..., E]` and the embedding's weight `[V, E]`."""
        return F.linear(hidden, weight, self.bias)


class LanguageModel(nn.Module):
    """Predict the next word from all words before it.

    `dropout` is the paper's standard dropout: on the embedded words, between layers and on the output.
    """

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigurationError(f"dropout must be at least 0 and below 1, not {dropout}")
        self.config = config
        self.dropout = dropout
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.layers = PRU(config, dropout)
        self.decoder = Decoder(config.vocabulary_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def initial_state(self, batch: int) -> Tensor:
        """State rows `[B, S]` of zeros: what precedes the initial `<eos>`."""
        return self.decoder.bias.new_zeros(batch, self.config.state_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `ids [B, T]` from `state [B, S]`; return hidden `[B, T, E]` and the state after the last id."""
        embedded = F.dropout(self.embedding(ids), self.dropout, self.training)
        hidden, state = self.layers(embedded, state)
        return F.dropout(hidden, self.dropout, self.training), state

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Natural log-probabilities `[..., V]` of the next word, from hidden `[..., E]`."""
        return F.log_softmax(self.decoder(hidden, self.embedding.weight), dim=-1)


def outline(config: ModelConfig) -> LanguageModel:
    """A model whose weights have shapes but no values, and take no memory however large they are."""
    with torch.device("meta"), _Undrawn():
        return LanguageModel(config)


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing from a normal distribution, for which the meta device would load a second's worth of code."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)
