"""How likely a model finds words after its hidden vectors: one loss to train by, or one number a word.

Boundary: a model, hidden vectors and targets in; negative log-likelihoods in nats out, in bounded memory. One softmax
goes by `training.cross_entropy`; a mixture of them by the model's own decoder, some rows at a time.
"""

from __future__ import annotations

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
    rows = max(1, ROWS // model.config.softmaxes)
    # What a chunk computes is computed again on the way back: all softmaxes of all rows would not fit.
    sums = [
        checkpoint(_sum_of_losses, model, h, target, use_reentrant=False)
        for h, target in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.stack(sums).sum() / len(targets)


@torch.no_grad()
def losses(model: LanguageModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihood of each of `targets [N]` after `hidden [N, E]` at a temperature, float32 `[N]`.

    Products run in the dtype of `hidden`.
    """
    weight, bias = model.embedding.weight, model.decoder.bias
    if model.config.softmaxes == 1:
        # Dividing the rows is dividing their logits, and far less work than dividing the table.
        return negative_log_likelihoods(hidden / temperature, weight, bias / temperature, targets)
    rows = max(1, ROWS // model.config.softmaxes)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([_losses(model, h, target, temperature).float() for h, target in chunks])


def _sum_of_losses(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    return _losses(model, hidden, targets).sum()


def _losses(model: LanguageModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihoods `[n]` by the model's own decoder."""
    lower = hidden.dtype != model.embedding.weight.dtype
    with torch.autocast(hidden.device.type, hidden.dtype if lower else None, enabled=lower):
        likely = model.log_probabilities(hidden, temperature)
    return -likely.gather(1, targets[:, None])[:, 0]
