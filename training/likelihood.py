"""How likely a model finds words after its hidden vectors: one loss to train by, or one number a word.

Boundary: a model, hidden vectors and targets in; negative log-likelihoods in nats out, in bounded memory. One softmax
goes by `training.cross_entropy`; a mixture of them by the model's own decoder, some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.language_model import LanguageModel
from training.cross_entropy import ROWS, negative_log_likelihoods, tied_cross_entropy


def mean_loss(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of `targets [N]` after `hidden [N, E]`, to be differentiated.

    Products run in the dtype of `hidden`, which is the parameters' or bfloat16.
    """
    weight, bias = model.embedding.weight, model.decoder.bias
    if model.config.softmaxes == 1:
        return tied_cross_entropy(hidden, weight, bias, targets)
    return mean_of_chunks(_sum_of_losses, model, hidden, targets)


def mean_of_chunks(
    sum_of_losses: Callable[[LanguageModel, Tensor, Tensor], Tensor],
    model: LanguageModel,
    hidden: Tensor,
    words: Tensor,
) -> Tensor:
    """Mean of what `sum_of_losses` gives for chunks of `hidden [N, E]` and `words [N]`, to be differentiated.

    What a chunk computes is computed again on the way back: all softmaxes of all rows would not fit.
    """
    sums = [checkpoint(sum_of_losses, model, h, word, use_reentrant=False) for h, word in _chunks(model, hidden, words)]
    return torch.stack(sums).sum() / len(words)


def _chunks(model: LanguageModel, hidden: Tensor, words: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = max(1, ROWS // model.config.softmaxes)
    return zip(hidden.split(rows), words.split(rows), strict=True)


@torch.no_grad()
def losses(model: LanguageModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihood of each of `targets [N]` after `hidden [N, E]` at a temperature, float32 `[N]`.

    Products run in the dtype of `hidden`.
    """
    weight, bias = model.embedding.weight, model.decoder.bias
    if model.config.softmaxes == 1:
        # Dividing the rows is dividing their logits, and far less work than dividing the table.
        return negative_log_likelihoods(hidden / temperature, weight, bias / temperature, targets)
    chunks = _chunks(model, hidden, targets)
    return torch.cat([_losses(model, h, target, temperature).float() for h, target in chunks])


def _sum_of_losses(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    return _losses(model, hidden, targets).sum()


def _losses(model: LanguageModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihoods `[n]` by the model's own decoder."""
    lower = hidden.dtype != model.embedding.weight.dtype
    with torch.autocast(hidden.device.type, hidden.dtype if lower else None, enabled=lower):
        likely = model.log_probabilities(hidden, temperature)
    return -likely.gather(1, targets[:, None])[:, 0]
