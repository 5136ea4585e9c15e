"""A language model as two functions of tensors: what is left of it when it only reads and predicts.

Boundary: `LanguageModel`'s own parts and weights under their names, in a form that TorchScript and `torch.export` take:
no dropout, no gradients, rows of any length. `model.pru` and `model.language_model` are the specification it is tested
against.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.language_model import Decoder, LanguageModel
from model.pru import PRULayer
from model.recurrence import grouped_inference
from model.transforms import GroupedTransform, LinearTransform


class InferenceModel(nn.Module):
    """A model's `advance` and `log_probabilities`; it shares the model's parameters."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.embedding = model.embedding
        self.layers = nn.ModuleList(map(_inference_layer, model.layers))  # type: ignore[arg-type]
        self.decoder = _InferenceDecoder(model.decoder)
        self.parts = [m for size in model.config.layer_sizes for m in (size.outputs, size.outputs)]

    def forward(self, ids: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read `lengths[b]` (0 to T) ids of each row of `ids [B, T]` from `state [B, S]`, T at least 1.

        Returns hidden `[B, T, E]`, undefined beyond a row's length, and the state after each row's last id. All ids
        must be words.
        """
        x = self.embedding(ids.t())
        before = state.split(self.parts, dim=1)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        last = (lengths.long() - 1).clamp(min=0)
        any_read = (lengths > 0).unsqueeze(1)
        after: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            h, c = before[2 * index], before[2 * index + 1]
            x, cs = layer(x, h, c)
            after.append(torch.where(any_read, x[last, rows], h))
            after.append(torch.where(any_read, cs[last, rows], c))
        return x.transpose(0, 1), torch.cat(after, dim=1)

    @torch.jit.export
    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Natural log-probabilities `[N, V]` of the next word, from `hidden [N, E]`."""
        likely: Tensor = self.decoder(hidden, self.embedding.weight)
        return likely


class _InferenceDecoder(nn.Module):
    """The softmax layer, or a mixture of several, at temperature 1."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.bias, self.softmaxes = decoder.bias, decoder.softmaxes
        several = decoder.softmaxes > 1
        self.prior: nn.Linear | None = decoder.prior if several else None
        self.latent: nn.Linear | None = decoder.latent if several else None

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Log-probabilities `[N, V]` from `hidden [N, E]` and the embedding's weight `[V, E]`."""
        if self.prior is None or self.latent is None:
            return F.log_softmax(F.linear(hidden, table, self.bias), dim=-1)
        latent = torch.tanh(self.latent(hidden)).unflatten(-1, (self.softmaxes, -1))
        components = F.log_softmax(F.linear(latent, table, self.bias), dim=-1)
        weights = F.log_softmax(self.prior(hidden), dim=-1)
        return torch.logsumexp(weights.unsqueeze(-1) + components, dim=-2)


def _inference_layer(layer: PRULayer) -> nn.Module:
    context = layer.context
    if layer.mogrifier is None and isinstance(context, LinearTransform | GroupedTransform):
        return _GroupedLayer(layer, context)
    return _SteppedLayer(layer)


class _GroupedLayer(nn.Module):
    """A layer whose groups evolve independently: the input's part of Eq. 5 is one product for all steps."""

    def __init__(self, layer: PRULayer, context: LinearTransform | GroupedTransform) -> None:
        super().__init__()
        self.input, self.context, self.residual = layer.input, context, layer.residual

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Read `x [T, B, N]`; h and c of every step, each `[T, B, M]`."""
        pre = self.input(x) + self.context.bias
        if self.residual:
            pre = pre + x.unsqueeze(-2)
        return grouped_inference(pre, self.context.weight, h, c)


class _SteppedLayer(nn.Module):
    """The form that every configuration has."""

    def __init__(self, layer: PRULayer) -> None:
        super().__init__()
        self.input, self.context, self.residual = layer.input, layer.context, layer.residual
        self.mogrifier = layer.mogrifier

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """As `_GroupedLayer.forward`."""
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        for t in range(x.shape[0]):
            part = x[t]
            if self.mogrifier is not None:
                part, h = self.mogrifier(part, h)
            pre = self.input(part) + self.context(h)
            if self.residual:
                pre = pre + part.unsqueeze(-2)
            i, f, g, o = pre.unbind(-2)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hs.append(h)
            cs.append(c)
        return torch.stack(hs), torch.stack(cs)
