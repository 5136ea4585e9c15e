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
from model.dropout import Dropout, drop, drop_words
from model.pru import PRU


class Decoder(nn.Module):
    """The softmax layer, or a mixture of several. Its weight is the embedding's, so it owns a bias alone.

    A mixture has latent vectors `tanh(W_k h + b_k)` in place of h and mixes their softmaxes by weights `softmax(U h)`
    (Yang et al., ICLR 2018, section 3.2).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.softmaxes = config.softmaxes
        if config.softmaxes > 1:
            self.prior = nn.Linear(config.embedding_size, config.softmaxes, bias=False)
            self.latent = nn.Linear(config.embedding_size, config.softmaxes * config.embedding_size)

    def mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights `[..., K]` and latent vectors `[..., K, E]` of the K softmaxes, from hidden `[..., E]`."""
        if self.softmaxes == 1:
            return hidden.new_zeros(*hidden.shape[:-1], 1), hidden.unsqueeze(-2)
        latent = torch.tanh(self.latent(hidden)).unflatten(-1, (self.softmaxes, -1))
        return _log_softmax(self.prior(hidden)), latent

    def forward(self, hidden: Tensor, weight: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities `[..., V]` from hidden `[..., E]` and the embedding's weight `[V, E]`.

        A temperature divides the logits; of a mixture, those of each softmax.
        """
        if self.softmaxes == 1:
            return _log_softmax(F.linear(hidden, weight, self.bias) / temperature)
        log_weights, latent = self.mixture(hidden)
        components = _log_softmax(F.linear(latent, weight, self.bias) / temperature)
        return torch.logsumexp(log_weights.unsqueeze(-1) + components, dim=-2)


def _log_softmax(logits: Tensor) -> Tensor:
    """Over the last axis, in float32 at least: products may be in half precision, sums of thousands may not."""
    return F.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


class LanguageModel(nn.Module):
    """Predict the next word from all words before it; `dropout` acts while it trains."""

    def __init__(self, config: ModelConfig, dropout: Dropout = Dropout()) -> None:  # noqa: B008 - it is frozen
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.layers = PRU(config, dropout)
        self.decoder = Decoder(config)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def initial_state(self, batch: int) -> Tensor:
        """State rows `[B, S]` of zeros: what precedes the initial `<eos>`."""
        return self.decoder.bias.new_zeros(batch, self.config.state_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `ids [B, T]` from `state [B, S]`; return hidden `[B, T, E]` and the state after the last id."""
        hidden, state = self.read(ids, state)
        return self.drop_output(hidden), state

    def read(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, the output's dropout left out: hidden is the last layer's h."""
        embedded = self.embedding(ids)
        if self.training:
            if self.dropout.word:
                embedded = drop_words(embedded, ids, self.config.vocabulary_size, self.dropout.word)
            embedded = drop(embedded, self.dropout.input, locked=self.dropout.locked)
        hidden: Tensor
        hidden, state = self.layers(embedded, state)
        return hidden, state

    def drop_output(self, hidden: Tensor) -> Tensor:
        """Hidden `[B, T, E]` after the output's dropout."""
        return drop(hidden, self.dropout.output, locked=self.dropout.locked) if self.training else hidden

    def log_probabilities(self, hidden: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Natural log-probabilities `[..., V]` of the next word, from hidden `[..., E]`."""
        likely: Tensor = self.decoder(hidden, self.embedding.weight, temperature)
        return likely


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
