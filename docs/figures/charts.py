"""What can be counted or computed of the unit: sub-sampled vectors, the pattern of grouped matrices, parameters.

Boundary: a palette in, matplotlib figures out. The modules of `model.transforms` make the data.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from docs.figures.diagrams import WORDS, paper
from docs.figures.draw import Palette
from model.config import ModelConfig, Subsampling
from model.language_model import outline
from model.transforms import GroupedTransform, PyramidalTransform
from training.presets import find_preset

LENGTH = 32
"""Elements of the vector that the sub-samplings are shown on."""
PATTERN = 16
"""Elements of the vectors whose grouped matrices are shown."""


def subsampling(palette: Palette) -> Figure:
    """One vector, and its second and third level by each of the four ways."""
    x = torch.sin(torch.arange(LENGTH) / 4.5) + 0.55 * torch.cos(torch.arange(LENGTH) * 2.3)
    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    kinds = (Subsampling.AVERAGE, Subsampling.SKIP, Subsampling.MAX, Subsampling.CONVOLUTION)
    levels = 3
    for row, kind in enumerate(kinds):
        for column, level in enumerate(_levels(x, kind, levels)):
            axes = figure.add_subplot(len(kinds), levels, row * levels + column + 1)
            stride = 2**column
            axes.bar(np.arange(len(level)) * stride, level, 0.8 * stride, color=palette.input, align="edge")
            axes.axhline(0, color=palette.faint, linewidth=0.6)
            axes.set(xlim=(-0.5, LENGTH), ylim=(-2.0, 2.0), xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if not row:
                axes.set_title(rf"$x^{column + 1}$: {len(level)} elements", fontsize=9)
            if not column:
                axes.set_ylabel(kind.value)
    return figure


def _levels(x: Tensor, kind: Subsampling, levels: int) -> list[npt.NDArray[np.float32]]:
    """The versions of `x` that a pyramid of this kind maps. A convolution learns its kernel: this is one of many."""
    sizes = {"vocabulary_size": 2, "embedding_size": len(x), "hidden_size": len(x), "layers": 1, "groups": 1}
    config = ModelConfig.from_dict(sizes | {"levels": levels, "subsampling": kind})
    transform = PyramidalTransform(len(x), len(x), config)
    if transform.kernels is not None:
        nn.init.constant_(transform.kernels, 0.5)
    with torch.no_grad():
        # Processors differ in the last digits, and pictures must not.
        return [level.numpy().round(3) for level in transform.pyramid(x)]


def grouped(palette: Palette) -> Figure:
    """Which elements of the context reach which outputs of a gate, by differentiating the transform."""
    figure = Figure(figsize=(5.4, 2.5), layout="constrained")
    outputs = paper().layer_sizes[1].outputs
    for column, groups in enumerate((1, 2, 4)):
        transform = GroupedTransform(PATTERN, PATTERN, groups)
        jacobian = torch.autograd.functional.jacobian(transform, torch.zeros(PATTERN))
        axes = figure.add_subplot(1, 3, column + 1)
        reached = (jacobian[0] != 0).numpy()
        axes.imshow(reached, cmap=ListedColormap(["none", palette.context]), vmin=0, vmax=1, interpolation="none")
        axes.set_xticks(np.arange(PATTERN + 1) - 0.5, [""] * (PATTERN + 1))
        axes.set_yticks(np.arange(PATTERN + 1) - 0.5, [""] * (PATTERN + 1))
        axes.grid(color=palette.faint, linewidth=0.4)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        millions = 4 * outputs * outputs // groups / 1e6
        axes.set_title(f"g = {groups}", fontsize=9.5)
        axes.set_xlabel(f"M = {outputs}:\n{millions:.2f} M weights")
        if not column:
            axes.set_ylabel("outputs of one gate")
    return figure


def parameters(palette: Palette) -> Figure:
    """Parameters of the models of the paper's Table 1, by what holds them."""
    names = ("lstm-1000", "lstm-1200", "lstm-1400", "pru-g1", "pru-g2", "pru-g4")
    parts = [_parts(find_preset(name).config(WORDS)) for name in names]
    figure = Figure(figsize=(5.4, 2.7), layout="constrained")
    axes = figure.add_subplot()
    left = [0.0] * len(names)
    kinds = (("embedding", palette.plain), ("input", palette.input), ("context", palette.context))
    for kind, colour in kinds:
        widths = [part[kind] for part in parts]
        axes.barh(names, widths, left=left, label=kind, color=colour, edgecolor=palette.ink, linewidth=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total + 0.4, place, f"{total:.2f}", va="center", color=palette.ink)
    axes.invert_yaxis()
    axes.set(xlabel=f"million parameters, {WORDS:,} words", xlim=(0, 1.12 * max(left)))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False)
    return figure


def _parts(config: ModelConfig) -> dict[str, float]:
    """Millions of parameters in the embedding (with the decoder's bias), the input and the context transforms."""
    held = {"embedding": 0.0, "input": 0.0, "context": 0.0}
    for name, parameter in outline(config).named_parameters():
        transform = next((part for part in ("input", "context") if part in name.split(".")), "embedding")
        held[transform] += parameter.numel() / 1e6
    return held
