"""How the unit is put together: the stack, one cell, its groups over time, and the levels of a pyramid.

Boundary: a palette in, matplotlib figures out. Every size is that of a preset's configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from docs.figures.draw import Palette
from model.config import ModelConfig, level_inputs, level_outputs
from model.language_model import outline
from training.presets import find_preset

WORDS = 10_000
"""Words of the Penn Treebank, which the paper's counts are for."""
PAPER = "pru-g4"
"""The preset of the paper's best model."""

Point = tuple[float, float]


def paper() -> ModelConfig:
    """The paper's model with four groups."""
    return find_preset(PAPER).config(WORDS)


def blank(width: float, height: float, limits: Sequence[float]) -> tuple[Figure, Axes]:
    """A figure of inches without axes; `limits` are left, right, bottom and top."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=limits[:2], ylim=limits[2:])
    axes.axis("off")
    return figure, axes


def arrow(axes: Axes, start: Point, end: Point, palette: Palette, *, bend: float = 0.0) -> None:
    """An arrow from one point to another."""
    look = {
        "arrowstyle": "-|>", "color": palette.ink, "shrinkA": 0, "shrinkB": 0,
        "linewidth": 0.9, "mutation_scale": 9, "connectionstyle": f"arc3,rad={bend}",
    }  # fmt: skip
    axes.annotate("", end, start, arrowprops=look)


def box(axes: Axes, centre: Point, size: Point, text: str, colour: str, palette: Palette) -> None:
    """A rounded box with a text in its middle."""
    (x, y), (width, height) = centre, size
    corner = (x - width / 2, y - height / 2)
    look = f"round,pad=0,rounding_size={height / 6}"
    axes.add_patch(FancyBboxPatch(corner, width, height, look, facecolor=colour, edgecolor=palette.ink, linewidth=0.8))
    axes.text(x, y, text, ha="center", va="center", color=palette.ink)


def sign(axes: Axes, centre: Point, text: str, palette: Palette) -> None:
    """A small circle with an operation in it."""
    axes.add_patch(Circle(centre, 0.2, facecolor=palette.plain, edgecolor=palette.ink, linewidth=0.8))
    axes.text(*centre, text, ha="center", va="center", color=palette.ink, fontsize=9)


def stack(palette: Palette) -> Figure:
    """Every layer as wide as its vectors, from the embedding down to the softmax."""
    config = paper()
    widest = max(max(size) for size in config.layer_sizes)
    figure, axes = blank(4.6, 4.6, (-0.62 * widest, 0.62 * widest, -9.2, 0.9))
    axes.text(0, 0.65, "the word just read", ha="center", va="center")
    arrow(axes, (0, 0.4), (0, 0.05), palette)
    edge = config.embedding_size
    _trapezium(axes, 0, (edge, edge), f"embedding\n{edge}", palette.plain, palette)
    top = -1.2
    for index, (layer, size) in enumerate(zip(outline(config).layers, config.layer_sizes, strict=True), start=1):
        arrow(axes, (0, top), (0, top - 0.45), palette)
        millions = sum(parameter.numel() for parameter in layer.parameters()) / 1e6
        residual = ", adds its input to every gate" if layer.residual else ""
        text = f"layer {index}: {size.inputs} to {size.outputs}{residual}"
        text += f"\n{millions:.2f} M parameters, g = {config.groups}"
        _trapezium(axes, top - 0.5, size, text, palette.input, palette)
        top -= 1.7
    arrow(axes, (0, top), (0, top - 0.45), palette)
    _trapezium(axes, top - 0.5, (edge, edge), f"output\n{edge}", palette.plain, palette)
    arrow(axes, (0, top - 1.7), (0, top - 2.1), palette)
    text = f"softmax over {config.vocabulary_size:,} words,\nby the embedding's own matrix"
    axes.text(0, top - 2.5, text, ha="center", va="center")
    return figure


def _trapezium(axes: Axes, top: float, size: Sequence[int], text: str, colour: str, palette: Palette) -> None:
    """A layer whose upper edge is as wide as its input, and the lower as its output."""
    (above, below), bottom = (width / 2 for width in size), top - 1.2
    corners = [(-above, top), (above, top), (below, bottom), (-below, bottom)]
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor=palette.ink, linewidth=0.8))
    axes.text(0, top - 0.6, text, ha="center", va="center", color=palette.ink)


def cell(palette: Palette) -> Figure:
    """One step: Eq. 5 from the left to the sums, Eq. 6 to the right of them."""
    figure, axes = blank(5.4, 3.4, (-0.5, 9.6, 0.55, 6.35))
    axes.text(0, 4.6, r"$x_t$", ha="center", va="center", fontsize=12)
    axes.text(0, 1.6, r"$h_{t-1}$", ha="center", va="center", fontsize=12)
    arrow(axes, (0.3, 4.6), (0.85, 4.6), palette)
    arrow(axes, (0.4, 1.6), (0.85, 1.6), palette)
    box(axes, (1.75, 4.6), (1.8, 1.0), "pyramidal\ntransform", palette.input, palette)
    box(axes, (1.75, 1.6), (1.8, 1.0), "grouped\ntransform", palette.context, palette)
    sign(axes, (3.55, 3.1), "+", palette)
    arrow(axes, (2.65, 4.3), (3.43, 3.28), palette)
    arrow(axes, (2.65, 1.9), (3.43, 2.92), palette)
    axes.plot((0, 0, 3.55), (4.95, 5.7, 5.7), color=palette.faint, linewidth=0.9, linestyle="--")
    axes.annotate(
        "", (3.55, 3.32), (3.55, 5.7),
        arrowprops={"arrowstyle": "-|>", "color": palette.faint, "linestyle": "--", "linewidth": 0.9, "shrinkA": 0},
    )  # fmt: skip
    axes.text(1.75, 5.78, r"residual, where $N = M$", ha="center", va="bottom", color=palette.ink, fontsize=8)
    heights = {"f": 5.0, "i": 3.7, "c": 2.4, "o": 1.1}
    names = {"f": r"$\sigma$  forget", "i": r"$\sigma$  input", "c": "tanh  content", "o": r"$\sigma$  output"}
    for gate, height in heights.items():
        arrow(axes, (3.76, 3.1), (4.15, height), palette)
        box(axes, (5.1, height), (1.9, 0.7), names[gate], palette.output, palette)
    for place in ((6.5, 5.0), (6.5, 3.05), (7.5, 4.0), (8.3, 1.1)):
        sign(axes, place, "+" if place == (7.5, 4.0) else "×", palette)
    axes.text(6.5, 6.1, r"$c_{t-1}$", ha="center", va="center", fontsize=12)
    arrow(axes, (6.5, 5.8), (6.5, 5.22), palette)
    arrow(axes, (6.05, 5.0), (6.28, 5.0), palette)
    arrow(axes, (6.05, 3.7), (6.38, 3.22), palette)
    arrow(axes, (6.05, 2.4), (6.38, 2.88), palette)
    arrow(axes, (6.7, 4.85), (7.35, 4.15), palette)
    arrow(axes, (6.7, 3.2), (7.35, 3.87), palette)
    arrow(axes, (7.72, 4.0), (8.75, 4.0), palette)
    axes.text(9.05, 4.0, r"$c_t$", ha="center", va="center", fontsize=12)
    box(axes, (8.3, 2.7), (0.9, 0.6), "tanh", palette.plain, palette)
    arrow(axes, (8.3, 4.0), (8.3, 3.0), palette)
    arrow(axes, (8.3, 2.4), (8.3, 1.32), palette)
    arrow(axes, (6.05, 1.1), (8.08, 1.1), palette)
    arrow(axes, (8.52, 1.1), (8.85, 1.1), palette)
    axes.text(9.1, 1.1, r"$h_t$", ha="center", va="center", fontsize=12)
    return figure


def groups(palette: Palette) -> Figure:
    """The groups of one layer as rows over time: what enters from above is shared, and no arrow crosses rows."""
    config = paper()
    size = config.layer_sizes[1].outputs // config.groups
    steps, count = 3, config.groups
    figure, axes = blank(5.2, 4.2, (-1.0, 8.4, -0.9, 1.1 * count + 1.9))
    top = 1.1 * count
    box(
        axes,
        (4.0, top + 1.1),
        (7.4, 0.8),
        "input's part of every gate, all steps in one product",
        palette.input,
        palette,
    )
    for step in range(steps):
        x = 1.3 + 2.7 * step
        axes.text(x, top + 0.32, rf"$x_{step + 1}$", ha="center", va="center", fontsize=10)
        for group in range(count):
            y = top - 0.6 - 1.1 * group
            box(axes, (x, y), (1.5, 0.64), f"LSTM {group + 1}", palette.context, palette)
            arrow(axes, (x - (1.1 if step else 1.35), y), (x - 0.77, y), palette)
            if step < steps - 1:
                axes.plot((x + 0.75, x + 1.6), (y, y), color=palette.ink, linewidth=0.9)
            else:
                arrow(axes, (x + 0.75, y), (x + 1.2, y), palette)
            if not step:
                axes.text(-0.1, y, rf"$h^{group + 1}, c^{group + 1}$", ha="right", va="center")
        axes.plot((x, x), (top + 0.68, top + 0.52), color=palette.ink, linewidth=0.9)
        axes.plot((x, x), (top + 0.1, top - 1.1 * count + 0.5), color=palette.ink, linewidth=0.9, zorder=0)
    text = f"every row: {size} of the {size * count} numbers of h and of c"
    axes.text(4.0, -0.45, text, ha="center", va="center")
    return figure


def pyramid(palette: Palette) -> Figure:
    """The matrices of a pyramid at their true proportions, inside the outline of the linear map they replace."""
    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    two = paper().layer_sizes[1]
    four = find_preset("figure5-g1-k4").config(WORDS)
    panels = (
        (two.inputs, two.outputs, paper()),
        (four.layer_sizes[0].inputs, four.layer_sizes[0].outputs, four),
    )
    for index, (inputs, outputs, config) in enumerate(panels):
        axes = figure.add_subplot(1, 2, index + 1)
        _draw_levels(axes, inputs, outputs, config, palette)
    return figure


def _draw_levels(axes: Axes, inputs: int, outputs: int, config: ModelConfig, palette: Palette) -> None:
    axes.add_patch(Rectangle((0, 0), inputs, outputs, fill=False, edgecolor=palette.faint, linestyle="--"))
    above, numbers = 0, 0
    sizes = zip(
        level_inputs(inputs, config.levels), level_outputs(outputs, config.levels, config.split), strict=True
    )  # fmt: skip
    for level, (width, height) in enumerate(sizes, start=1):
        numbers += width * height
        corner = (0, above)
        axes.add_patch(Rectangle(corner, width, height, facecolor=palette.input, edgecolor=palette.ink, linewidth=0.8))
        inside = width > inputs / 3
        place = width / 2 if inside else width + inputs / 25
        text = rf"$W^{level}$: {height} × {width}"
        axes.text(place, above + height / 2, text, ha="center" if inside else "left", va="center", color=palette.ink)
        above += height
    saved = 1 - numbers / (inputs * outputs)
    axes.set(
        title=f"K = {config.levels}: {saved:.0%} fewer weights",
        xlabel="elements of the level",
        ylabel="outputs, one level below the other",
        xlim=(-inputs / 50, inputs * 1.02),
        ylim=(outputs * 1.02, -outputs / 50),
        xticks=level_inputs(inputs, config.levels)[:3],
        yticks=[0, outputs],
    )
    axes.title.set_fontsize(9.5)
