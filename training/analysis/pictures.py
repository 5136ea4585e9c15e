"""Pictures of the analyses, 1,800 pixels wide, for colour-blind readers too.

Boundary: results by the names of their models in, bytes of a PNG out. Nothing is computed here but where things stand.
Names and words are drawn as they are: a dollar sign begins no formula.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

from model.vocabulary import Vocabulary
from training.analysis.attribution import Attribution
from training.analysis.coverage import THRESHOLD, coverage
from training.analysis.embedding_variance import Variance
from training.analysis.entropy import BIN, histogram
from training.analysis.saliency import normalised, saliency
from training.analysis.tables import Entropies
from training.pictures import COLOURS, missing_glyphs_allowed

WIDTH, DPI = 9.0, 200
"""Inches, and dots an inch: letters of 9 points are still read at half the width."""
TALLEST = 20_000
"""Dots of a picture from top to bottom; a deeper one has fewer an inch. Not 2^16 of them can be drawn."""
LINES = ("-", "--", ":", "-.")
GREY = "0.35"
LONGEST_NAME, LONGEST_WORD, SHORT_WORD = 40, 24, 12
"""Characters that are drawn of a model's name, of a word, and of one where room is scarce."""


def entropy_histogram(entropies: Entropies, vocabulary_size: int) -> bytes:
    """Figure 3: a line a model, its mean in the legend."""
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    lines, labels, last = [], [], 0
    for index, (name, of_model) in enumerate(entropies.items()):
        counts = histogram(of_model, vocabulary_size)
        last = max(last, np.flatnonzero(counts)[-1])
        middles = (np.arange(len(counts)) + 0.5) * BIN
        lines += axes.plot(
            middles, 100 * counts / counts.sum(), color=COLOURS[index], linestyle=LINES[index % len(LINES)], linewidth=2
        )
        labels.append(f"{_cut(name, LONGEST_NAME)} (mean {of_model.mean():.2f})")
    axes.set_xlim(0, (last + 2) * BIN)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"entropy of the next word, nats (bins of {BIN})")
    axes.set_ylabel("contexts, %")
    _furnish(figure, axes, lines, labels)
    return _png(figure)


def embedding_variances(variances: Mapping[str, Sequence[Variance]]) -> bytes:
    """Figure 4: a group of bars a category, a bar for each model and level."""
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    categories = [row.category for row in next(iter(variances.values())) if row.level == 1]
    words = [row.words for row in next(iter(variances.values())) if row.level == 1]
    levels = [(name, level) for name, rows in variances.items() for level in sorted({row.level for row in rows})]
    width = 0.8 / len(levels)
    bars, labels = [], []
    for index, (name, level) in enumerate(levels):
        heights = [row.variance for row in variances[name] if row.level == level]
        colour = COLOURS[list(variances).index(name)]
        places = np.arange(len(categories)) + (index - (len(levels) - 1) / 2) * width
        bars.append(
            axes.bar(places, heights, width, color=(colour, 1 / level), edgecolor=colour, hatch="//" * (level - 1))
        )
        labels.append(f"{_cut(name, LONGEST_NAME)}, level {level}")
    axes.set_xticks(range(len(categories)), [f"{c}\n{n:,}" for c, n in zip(categories, words, strict=True)])
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set_xlabel("part of speech, and words counted")
    axes.set_ylabel("variance of embeddings")
    _furnish(figure, axes, bars, labels)
    return _png(figure)


def gradient_coverage(attributions: Mapping[str, Attribution], vocabulary: Vocabulary) -> bytes:
    """Table 2b: a panel a model, words downwards and dimensions rightwards, entries below the threshold darkest."""
    words = [_word(vocabulary, token_id) for token_id in next(iter(attributions.values())).ids]
    height = max(3.5, (0.7 + 0.17 * len(words)) * len(attributions) + 0.4)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(attributions), squeeze=False)[:, 0]
    for axes, (name, attribution) in zip(panels, attributions.items(), strict=True):
        sizes = attribution.gradients.abs()
        shares = (sizes / sizes.max()).nan_to_num(0).clamp_min(THRESHOLD).numpy()
        places = (0.5, shares.shape[1] + 0.5, len(words) - 0.5, -0.5)
        image = axes.imshow(
            shares,
            aspect="auto",
            cmap="cividis",
            norm=LogNorm(THRESHOLD, 1),
            interpolation="nearest",
            extent=places,
        )
        axes.set_yticks(range(len(words)), words, fontsize=9, parse_math=False)
        predicted = _word(vocabulary, attribution.top[0])
        title = f"{_cut(name, LONGEST_NAME)}: coverage {coverage(attribution.gradients):.1%}, next word {predicted}"
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    panels[-1].set_xlabel(f"dimension of the word vector (darkest, not covered: at most {THRESHOLD:g} of the largest)")
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, aspect=5 * height)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.set_label("share of the largest |gradient|")
    return _png(figure)


def saliencies(attributions: Mapping[str, Sequence[Attribution]], vocabulary: Vocabulary) -> bytes:
    """Table 2a: for each sequence a row a model; words shaded by normalised saliency, likeliest next words beside.

    A word's own shade is for the likeliest; under it is a stripe for each of them, in their order.
    """
    page = _Page()
    page.write(
        page.LEFT,
        page.depth,
        "words shaded by saliency for the likeliest next word; stripes: for each in its order",
        color=GREY,
    )
    page.write(page.PROBABILITIES, page.depth, "next word", color=GREY)
    page.depth += 1.5 * page.LINE
    for sequence, of_models in enumerate(zip(*attributions.values(), strict=True), start=1):
        for name, attribution in zip(attributions, of_models, strict=True):
            page.write(page.LEFT, page.depth, f"{sequence}  {_cut(name, LONGEST_NAME)}", weight="bold")
            words = [_word(vocabulary, token_id) for token_id in attribution.ids]
            shades = [normalised(of_one).tolist() for of_one in saliency(attribution.gradients_of_top)]
            end = page.flow(page.depth + page.LINE, words, list(zip(*shades, strict=True)))
            for token_id, probability in zip(attribution.top, attribution.probabilities, strict=True):
                page.write(page.WORDS - 0.1, page.depth, f"{probability:.1%}", ha="right", color=GREY)
                page.write(page.WORDS, page.depth, _cut(vocabulary.surface(token_id), SHORT_WORD))
                page.depth += page.LINE
            page.depth = max(end, page.depth) + page.LINE / 2
    return page.png()


class _Page:
    """Lines of text from the top downwards, on a picture as deep as they reach; places are in inches."""

    LEFT, RIGHT = 0.15, 6.9
    """Where lines of words begin and break."""
    PROBABILITIES, WORDS = 7.15, 7.8
    """Where the columns of predictions begin."""
    LINE, GAP = 0.24, 0.03
    STRIPES = 0.36
    """Room for the stripes under a line of words."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH, 1), dpi=DPI)
        # A figure is cut out of its plane by moving what is placed by its own measures, and nothing else.
        self.inches = Affine2D().scale(1 / WIDTH, 1) + self.figure.transFigure
        self.depth = self.LEFT

    def write(self, x: float, depth: float, text: str, **style: Any) -> Text:
        """Write on the line whose upper edge is `depth` from the top."""
        place = {"transform": self.inches, "va": "center", "fontsize": 10}
        return self.figure.text(x, -depth - self.LINE / 2, text, fontdict=place | style, parse_math=False)

    def flow(self, depth: float, words: Sequence[str], shades: Sequence[Sequence[float]]) -> float:
        """Write words one after the other on the first of their shades, stripes of all under them; return the end."""
        x = self.LEFT
        for word, (shade, *others) in zip(words, shades, strict=True):
            text = self.write(x + self.GAP, depth, word)
            with missing_glyphs_allowed():
                width = text.get_window_extent().width / DPI + 2 * self.GAP
            if x + width > self.RIGHT and x > self.LEFT:
                x, depth = self.LEFT, depth + self.LINE + self.STRIPES
                text.set_position((x + self.GAP, -depth - self.LINE / 2))
            self._fill(x, depth + self.GAP / 2, width, self.LINE - self.GAP, shade)
            stripe = self.STRIPES / (len(others) + 2)
            for rank, of_rank in enumerate((shade, *others)):
                self._fill(x, depth + self.LINE + rank * stripe, width, 0.8 * stripe, of_rank)
            x += width + self.GAP
        return depth + self.LINE + self.STRIPES

    def _fill(self, x: float, depth: float, width: float, height: float, shade: float) -> None:
        # The darkest is one on which black letters still stand out.
        colour = colormaps["Oranges"](0.7 * shade)
        place = (x, -depth - height)
        self.figure.add_artist(Rectangle(place, width, height, transform=self.inches, color=colour, linewidth=0))

    def png(self) -> bytes:
        """The picture, from its top edge at 0 down to the last line."""
        return _png(self.figure, Bbox([[0, -self.depth], [WIDTH, 0]]))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _word(vocabulary: Vocabulary, token_id: int) -> str:
    return _cut(vocabulary.surface(token_id), LONGEST_WORD)


def _furnish(figure: Figure, axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A grid behind the data and a legend above them, for which the picture grows."""
    figure.set_size_inches(WIDTH, 4.5 + 0.12 * len(labels))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _png(figure: Figure, part: Bbox | None = None) -> bytes:
    """The picture, or a part of its plane, in inches."""
    data = io.BytesIO()
    height = part.height if part else figure.get_figheight()
    with missing_glyphs_allowed():
        figure.savefig(data, format="png", dpi=min(DPI, TALLEST / height), bbox_inches=part)
    return data.getvalue()
