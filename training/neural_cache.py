"""Evaluation with a neural cache: words that followed similar hidden vectors a while ago become more probable.

Boundary: ids in, sums of negative log-likelihoods out. The weights do not change; the cache is the text's own past.

Source: Grave, Joulin and Usunier, "Improving neural language models with a continuous cache" (ICLR 2017), equations 3
and 4, linear interpolation: p = (1 - lambda) p_vocabulary + lambda p_cache, where p_cache(w) is proportional to the sum
of exp(theta h_t . h_i) over those i of the last `window` positions whose next word x_(i+1) is w.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.conventions import Convention
from model.errors import ConfigurationError
from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.cross_entropy import ROWS
from training.evaluate import Evaluation, Parameters, read_chunks
from training.likelihood import losses

SCORES = 1 << 22
"""About the most similarities that exist at a time: 16 MB of them."""
TINY = 1e-38
"""Least probability of a word, that of static evaluation: a cache alone gives none to a word it has not seen."""


@dataclass(frozen=True)
class NeuralCache:
    """Settings of a cache; `ConfigurationError` for what cannot be. Choose them on a validation text."""

    lambda_: float
    """Weight of the cache, from 0 (static evaluation) to 1 (the cache alone)."""
    theta: float
    """How strongly the cache prefers what followed the most similar hidden vectors; 0 counts words alone."""
    window: int
    """Positions remembered."""

    def __post_init__(self) -> None:
        if not 0 <= self.lambda_ <= 1:
            raise ConfigurationError(f"the cache's lambda must lie between 0 and 1, not {self.lambda_}")
        if not 0 <= self.theta < math.inf:
            raise ConfigurationError(f"the cache's theta must be a finite number of at least 0, not {self.theta}")
        if self.window < 1:
            raise ConfigurationError(f"the cache's window must be at least 1 position, not {self.window}")

    @property
    def parameters(self) -> Parameters:
        """The settings as a result records them."""
        return {"lambda": self.lambda_, "theta": self.theta, "window": self.window}


PUBLISHED = {
    Convention.PTB: NeuralCache(0.1, 1.0, 500),
    Convention.WIKITEXT: NeuralCache(0.1279, 0.662, 3785),
}
"""Settings tuned for AWD-LSTMs on the validation texts of the Penn Treebank and of WikiText-2 (Merity et al. 2018)."""


@torch.no_grad()
def evaluate_with_cache(
    model: LanguageModel,
    ids: Ids,
    eos_id: int,
    cache: NeuralCache,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every token of `ids`, state and cache carried from the initial `<eos>` to the end.

    Before the first word is known there is nothing to cache, and the vocabulary's probability stands alone.
    """
    window = min(cache.window, len(ids))
    keys = model.embedding.weight.new_empty(0, model.config.embedding_size)
    words = torch.empty(0, dtype=torch.int64, device=keys.device)
    total, tokens = 0.0, 0
    for hidden, targets in read_chunks(model, ids, eos_id, min(ROWS, max(1, SCORES // window))):
        keys, words = torch.cat([keys, hidden]), torch.cat([words, targets])
        of_vocabulary = losses(model, hidden, targets).double().neg_().exp_()
        of_cache = _cache_probabilities(keys, words, len(targets), cache.theta, window).double()
        mixed = (1 - cache.lambda_) * of_vocabulary + cache.lambda_ * of_cache
        if tokens == 0:
            mixed[0] = of_vocabulary[0]
        total -= mixed.clamp_min_(TINY).log_().sum().item()
        tokens += len(targets)
        keys, words = keys[-window:], words[-window:]
        advance(len(targets))
    return Evaluation(total, tokens, "neural_cache", cache.parameters)


def _cache_probabilities(keys: Tensor, words: Tensor, last: int, theta: float, window: int) -> Tensor:
    """The cache's probability `[last]` of each of the `last` latest words; not a number where nothing came before.

    `keys [n, E]` are hidden vectors, oldest first, and `words [n]` the words that followed them.
    """
    scores = theta * (keys[-last:] @ keys.t())
    # Row q asks at position p = n - last + q: the pairs from p - window to p - 1 are known by then.
    earlier = len(keys) - last
    remembered = torch.ones_like(scores, dtype=torch.bool).tril_(earlier - 1).triu_(earlier - window)
    shares = scores.masked_fill_(~remembered, -math.inf).softmax(dim=-1)
    return shares.masked_fill_(words != words[-last:, None], 0).sum(dim=-1)
