"""Static evaluation: how well a model predicts a text it does not adapt to; and what every kind of evaluation returns.

Boundary: ids in, sums of negative log-likelihoods out. The other kinds are `training.temperature`,
`training.neural_cache` and `training.dynamic_evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.language_model import LanguageModel
from model.vocabulary import Ids
from training.batching import as_rows, context_and_targets, fixed_lengths, segments
from training.likelihood import losses

TOKENS = 2048
"""Tokens a chunk, all streams together."""

Parameters = Mapping[str, int | float | str]
"""Settings of an evaluation by their names in its record."""


@dataclass(frozen=True)
class Evaluation:
    """Sum of the negative log-likelihood, in nats, over `tokens` targets, and how it was measured."""

    negative_log_likelihood: float
    tokens: int
    method: str = "static"
    """`static`, `temperature`, `neural_cache` or `dynamic`."""
    parameters: Parameters = field(default_factory=dict)
    known: Evaluation | None = None
    """The same over the targets that are not `<unk>`, where it was asked for and there are any."""

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood, which of one softmax is at most 87.5; infinite from 700 on."""
        mean = self.negative_log_likelihood / self.tokens
        return math.inf if mean > 700 else math.exp(mean)

    @property
    def measure(self) -> str:
        """What the figure is called."""
        return measure_of(self.method)

    def record(self) -> dict[str, Any]:
        """The result for programs: tokens, method, parameters, and the perplexity under the name of its `measure`."""
        of_known = {f"{self.measure}_of_known": self.known.perplexity} if self.known else {}
        return {
            "tokens": self.tokens,
            "evaluation": self.method,
            "parameters": dict(self.parameters),
            self.measure: self.perplexity,
            **of_known,
        }


def measure_of(method: str) -> str:
    """What a method's figure is called: `perplexity` is a static one alone, so that no other is ever taken for it."""
    return "perplexity" if method == "static" else f"{method}_perplexity"


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    ids: Ids,
    eos_id: int,
    *,
    unk_id: int | None = None,
    streams: int = 1,
    bfloat16: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Score every token of `ids`, state carried from the initial `<eos>` to the end.

    `streams` above 1 cuts the text into that many pieces that are read side by side, and `bfloat16` rounds the
    products: much faster, and for watching a run rather than for reporting, since each piece's first words lack their
    context. With an `unk_id` the result has `known` as well. `advance` is told of every batch of tokens done.
    """
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    total, tokens = 0.0, 0
    of_known, known = 0.0, 0
    chunks = read_chunks(model, ids, eos_id, max(1, TOKENS // streams), streams=streams, bfloat16=bfloat16)
    for hidden, targets in chunks:
        found = losses(model, hidden.to(dtype), targets).double()
        total += found.sum().item()
        tokens += len(targets)
        if unk_id is not None:
            is_known = targets != unk_id
            of_known += found[is_known].sum().item()
            known += int(is_known.sum())
        advance(len(targets))
    return Evaluation(total, tokens, known=Evaluation(of_known, known) if known else None)


@torch.no_grad()
def read_chunks(
    model: LanguageModel, ids: Ids, eos_id: int, length: int, *, streams: int = 1, bfloat16: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Hidden vectors `[n, E]` and the words that follow them `[n]`, `length` words of each stream at a time.

    Reads without dropout, state carried from the initial `<eos>` to the end; leaves the model as it was.
    """
    rows = as_rows(context_and_targets(ids, eos_id), streams).to(model.decoder.bias.device)
    state = model.initial_state(streams)
    was_training = model.training
    model.eval()
    try:
        for inputs, targets in segments(rows, fixed_lengths(rows.shape[1] - 1, length)):
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
                hidden, state = model(inputs, state)
            yield hidden.flatten(0, 1), targets.flatten()
    finally:
        model.train(was_training)
