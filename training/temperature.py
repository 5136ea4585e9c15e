"""Softmax temperature: one number that sharpens or softens every prediction, tuned on a text that is not reported.

Boundary: ids in; a temperature, or sums of negative log-likelihoods, out. With temperature T the probability of a word
is softmax(logits / T); T = 1 is static evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import ConfigurationError
from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.cross_entropy import ROWS
from training.evaluate import Evaluation, read_chunks
from training.likelihood import losses

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures that tuning chooses between. Those of trained models are near 1."""
PRECISION = 1e-3
"""Relative change of the temperature at which tuning ends: a step of Newton's method squares it for the next."""
SAMPLE = 16_384
"""Tokens whose temperature is found first: what is left to the whole text is a reading or two."""


@torch.no_grad()
def evaluate_at_temperature(
    model: LanguageModel,
    ids: Ids,
    eos_id: int,
    temperature: float,
    *,
    tuned_on: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every token of `ids` as static evaluation does, at a temperature; `tuned_on` is the text that chose it.

    Raises `ConfigurationError` unless `temperature` is finite and above 0.
    """
    if not 0 < temperature < math.inf:
        raise ConfigurationError(f"temperature must be a finite number above 0, not {temperature}")
    total, tokens = 0.0, 0
    for hidden, targets in read_chunks(model, ids, eos_id, ROWS):
        total += losses(model, hidden, targets, temperature).double().sum().item()
        tokens += len(targets)
        advance(len(targets))
    origin = {"tuned_on": tuned_on} if tuned_on is not None else {}
    return Evaluation(total, tokens, "temperature", {"temperature": temperature, **origin})


def tune_temperature(
    model: LanguageModel, ids: Ids, eos_id: int, *, advance: Callable[[int], None] = lambda _: None
) -> float:
    """The temperature between `LOWEST` and `HIGHEST` at which `ids`, a validation text, is most probable.

    Of one softmax, the negative log-likelihood is convex in b = 1 / T, with derivative E[z] - z_target and second
    derivative Var[z] over the words' logits z. Newton's method finds its minimum in a few readings of the text's
    beginning and a few of the whole.
    """
    inverse = _minimum(model, ids[:SAMPLE], eos_id, 1.0, advance)
    return 1 / (_minimum(model, ids, eos_id, inverse, advance) if len(ids) > SAMPLE else inverse)


def _minimum(model: LanguageModel, ids: Ids, eos_id: int, inverse: float, advance: Callable[[int], None]) -> float:
    """The inverse temperature at which `ids` is most probable; a bracket that closes around it bounds every step."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    while True:
        slope, curvature = _derivatives(model, ids, eos_id, inverse, advance)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        after = inverse - slope / curvature if curvature > 0 else low
        if not low <= after <= high:
            after = math.sqrt(low * high)
        if abs(after - inverse) <= PRECISION * inverse:
            return after
        inverse = after


@torch.no_grad()
def _derivatives(
    model: LanguageModel, ids: Ids, eos_id: int, inverse: float, advance: Callable[[int], None]
) -> tuple[float, float]:
    """First and second derivative of the negative log-likelihood of `ids`, in nats, by the inverse temperature."""
    sums = torch.zeros(2, dtype=torch.float64)
    for hidden, targets in read_chunks(model, ids, eos_id, ROWS):
        if model.config.softmaxes == 1:
            logits = F.linear(hidden, model.embedding.weight, model.decoder.bias)
            sums += _chunk_derivatives(logits, targets, inverse).cpu()
        else:
            sums += _mixture_derivatives(model, hidden, targets, inverse)
        advance(len(targets))
    slope, curvature = sums.tolist()
    return slope, curvature


def _chunk_derivatives(logits: Tensor, targets: Tensor, inverse: float) -> Tensor:
    """Both derivatives `[2]`, float64, summed over the rows of `logits [n, V]`."""
    # Seen from the target's logit, the numbers are small and the subtractions lose nothing.
    logits -= logits.gather(1, targets[:, None])
    probabilities = torch.softmax(logits * inverse, dim=-1)
    mean = torch.linalg.vecdot(probabilities, logits)
    variance = torch.linalg.vecdot(probabilities, logits.sub_(mean[:, None]).square_())
    return torch.stack([mean.double().sum(), variance.double().sum()])


def _mixture_derivatives(model: LanguageModel, hidden: Tensor, targets: Tensor, inverse: float) -> Tensor:
    """The same of a mixture of softmaxes, whose second derivative need not be positive, by differentiating twice."""
    rows = max(1, ROWS // model.config.softmaxes)
    sums = torch.zeros(2, dtype=torch.float64)
    for h, target in zip(hidden.split(rows), targets.split(rows), strict=True):
        with torch.enable_grad():
            b = hidden.new_tensor(inverse, requires_grad=True)
            loss = -model.log_probabilities(h, 1 / b).gather(1, target[:, None]).sum()
            (slope,) = torch.autograd.grad(loss, b, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, b)
        sums += torch.stack([slope.detach(), curvature]).double().cpu()
    return sums
