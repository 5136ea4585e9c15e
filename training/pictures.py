"""The paper's Figures 1 and 5 for our own runs.

Boundary: records in, matplotlib figures and PNG bytes out. Keeps no state between calls (no pyplot). It imports
matplotlib, so it is itself imported only where pictures are made.
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, ScalarFormatter

from training.run_record import RunRecord, by_kind, in_order

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers tell apart (Okabe and Ito), in the order in which they are given out."""
MARKERS = "osD^v*P"
WIDTH, PANEL_HEIGHT = 8.0, 4.5
"""Inches. At `DOTS` an inch a picture is 1600 pixels wide, and its text is still read at half of that."""
DOTS = 200
FIGURE_5 = "figure5-"
"""How the names of the presets of Figure 5 begin."""


def learning_curves(records: Sequence[RunRecord]) -> Figure | None:
    """Training (solid) and validation (dashed) perplexity over epochs, one colour a run, as in Figure 1.

    A panel for each part of the paper and each corpus, so that what is in one can be compared. No figure where no epoch
    was finished.
    """
    panels: dict[str, list[RunRecord]] = defaultdict(list)
    for record in in_order(records):
        if record.curve:
            section = record.published.section if record.published else "Runs of no table or figure"
            panels[f"{section} ({record.data.name})"].append(record)
    if not panels:
        return None
    figure, axes = _panels(len(panels))
    for panel, (title, runs) in zip(axes, panels.items(), strict=True):
        _draw_curves(panel, title, runs)
    return figure


def _draw_curves(axes: Axes, title: str, runs: Sequence[RunRecord]) -> None:
    for record, colour, marker in zip(runs, _colours(len(runs)), itertools.cycle(MARKERS), strict=False):
        epochs = [point.epoch for point in record.curve]
        # Where neighbouring colours are alike, and where there is but one point, which makes no line.
        marked = len(runs) > len(COLOURS) or len(epochs) == 1
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker if marked else "",
            "markevery": math.ceil(len(epochs) / 8),
        }
        train = [point.train_perplexity for point in record.curve]
        valid = [point.valid_perplexity for point in record.curve]
        axes.plot(epochs, train, linestyle="-", label=_label(record, runs), **look)
        axes.plot(epochs, valid, linestyle="--", label="_", **look)
    axes.set(title=_text(title), xlabel="epoch", ylabel="perplexity (log scale)", yscale="log")
    axes.set_ylim(*_limits(runs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # A logarithmic axis by itself names powers of ten alone, and perplexities seldom cross two of them.
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    kinds = [
        Line2D([], [], color="grey", linestyle="-", label="training"),
        Line2D([], [], color="grey", linestyle="--", label="validation"),
    ]
    handles, _ = axes.get_legend_handles_labels()
    # Below the axes: with many runs there is no room among the curves.
    axes.legend(handles=handles + kinds, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize="small", ncols=3)


def _limits(runs: Sequence[RunRecord]) -> tuple[float, float]:
    """Lowest and highest perplexity shown: not the first tenth of each run, whose fall would squash all the rest."""
    settled = [point for record in runs for point in record.curve[math.ceil(len(record.curve) / 10) :]]
    points = settled or [point for record in runs for point in record.curve]
    perplexities = [value for point in points for value in (point.train_perplexity, point.valid_perplexity)]
    return min(perplexities) / 1.05, max(perplexities) * 1.05


def levels_and_groups(records: Sequence[RunRecord]) -> Figure | None:
    """Validation perplexity against the reduction of recurrent parameters, one line a K, a panel a corpus.

    Drawn of finished runs of the presets of Figure 5, repeated ones as their mean; none where they are fewer than two.
    """
    panels: dict[str, list[list[RunRecord]]] = defaultdict(list)
    runs = [record for record in records if record.preset.startswith(FIGURE_5) and record.finished]
    if len(runs) < 2:
        return None
    for kind in by_kind(runs):
        panels[kind[0].data.name].append(kind)
    figure, axes = _panels(len(panels))
    for panel, (data, kinds) in zip(axes, sorted(panels.items()), strict=True):
        _draw_levels(panel, data, kinds)
    return figure


def _draw_levels(axes: Axes, data: str, kinds: Sequence[Sequence[RunRecord]]) -> None:
    lines: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    for kind in kinds:
        model = kind[0].model
        perplexity = statistics.fmean(record.perplexity["valid"] for record in kind)
        lines[model.levels].append((100 * kind[0].reduction, perplexity, model.groups))
    for (levels, points), colour, marker in zip(
        sorted(lines.items()), _colours(len(lines)), itertools.cycle(MARKERS), strict=False
    ):
        points.sort()
        reductions, perplexities, _ = zip(*points, strict=True)
        axes.plot(reductions, perplexities, color=colour, marker=marker, label=f"K = {levels}")
        for reduction, perplexity, groups in points:
            axes.annotate(
                f"g={groups}", (reduction, perplexity), xytext=(6, -10), textcoords="offset points", fontsize="x-small"
            )
    axes.set(
        title=_text(f"Levels and groups ({data})"),
        xlabel="reduction of recurrent parameters relative to the LSTM",
        ylabel="validation perplexity",
    )
    axes.xaxis.set_major_formatter(PercentFormatter())
    axes.margins(0.1)
    axes.legend(fontsize="small")


def png(figure: Figure) -> bytes:
    """The picture, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with missing_glyphs_allowed():
        figure.savefig(buffer, format="png", dpi=DOTS, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def missing_glyphs_allowed() -> Iterator[None]:
    """Draw a character that the font lacks as a box, without a warning each: the tables have it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels below one another."""
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * count), layout="constrained")
    axes = [figure.add_subplot(count, 1, index + 1) for index in range(count)]
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


def _colours(count: int) -> list[str]:
    """Distinct colours; beyond those of `COLOURS`, ones from dark to light, which every reader can order."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [to_hex(colormaps["viridis"](0.9 * index / (count - 1))) for index in range(count)]


def _label(record: RunRecord, runs: Sequence[RunRecord]) -> str:
    """The preset, and as much more as tells the run from the others."""
    alone = sum(other.preset == record.preset for other in runs) == 1
    label = record.preset if alone else f"{record.preset}, seed {record.seed}"
    return _text(label if record.finished else f"{label} (not finished)")


def _text(text: str) -> str:
    """Text that matplotlib takes as it is, and not as a formula."""
    return text.replace("$", r"\$")
