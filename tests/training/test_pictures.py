"""What the pictures show, read from their axes before they become pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.training.records import Record, ablation, curve, read, record
from training.pictures import COLOURS, learning_curves, levels_and_groups, png


def curves_of(*records: Record) -> Figure:
    figure = learning_curves(read(*records))
    assert figure is not None
    return figure


def named(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """The points of every line that has a name."""
    return {str(line.get_label()): points(line) for line in axes.lines if not str(line.get_label()).startswith("_")}


def points(line: Any) -> tuple[list[float], list[float]]:
    return list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def test_training_is_solid_and_validation_dashed_in_one_colour_a_run() -> None:
    runs = [
        record("lstm-1000", curve=curve((300, 200), (100, 90))),
        record(curve=curve((310, 190), (95, 80), (70, 75))),
    ]
    (axes,) = curves_of(*runs).axes
    drawn = [(line.get_color(), line.get_linestyle(), points(line)) for line in axes.lines]
    assert drawn == [
        (COLOURS[0], "-", ([1, 2], [300, 100])),
        (COLOURS[0], "--", ([1, 2], [200, 90])),
        (COLOURS[1], "-", ([1, 2, 3], [310, 95, 70])),
        (COLOURS[1], "--", ([1, 2, 3], [190, 80, 75])),
    ]
    assert legend(axes) == ["lstm-1000", "pru-g4", "training", "validation"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "perplexity (log scale)", "log")


def test_the_first_epochs_do_not_squash_the_rest() -> None:
    falling = [(5000.0, 3000.0), *[(100.0 - epoch, 110.0 - epoch) for epoch in range(9)]]
    (axes,) = curves_of(record(curve=curve(*falling))).axes
    assert axes.get_ylim() == pytest.approx((92 / 1.05, 110 * 1.05))
    # A run of one epoch has nothing else to show, and one point makes no line.
    (axes,) = curves_of(record(curve=curve((5000.0, 3000.0)))).axes
    assert axes.get_ylim() == pytest.approx((3000 / 1.05, 5000 * 1.05))
    assert axes.lines[0].get_marker() == "o"


def test_each_part_of_the_paper_and_each_corpus_has_a_panel() -> None:
    figure = curves_of(record("small", "wikitext-2"), record(), record("pru-g4", "wikitext-2"), record("lstm-1000"))
    assert [(axes.get_title(), list(named(axes))) for axes in figure.axes] == [
        ("Table 1: standard dropout (ptb)", ["lstm-1000", "pru-g4"]),
        ("Table 1: standard dropout (wikitext-2)", ["pru-g4"]),
        ("Runs of no table or figure (wikitext-2)", ["small"]),
    ]


def test_seeds_and_what_is_not_finished_are_told_apart() -> None:
    (axes,) = curves_of(record(), record(seed=2, finished=False), record("pru-g1", finished=False)).axes
    assert list(named(axes)) == ["pru-g1 (not finished)", "pru-g4, seed 1", "pru-g4, seed 2 (not finished)"]


@pytest.mark.parametrize("count", [7, 8, 20])
def test_every_run_has_a_colour_of_its_own(count: int) -> None:
    (axes,) = curves_of(*[record(seed=seed) for seed in range(count)]).axes
    assert len({line.get_color() for line in axes.lines}) == count
    assert all((line.get_marker() == "") == (count <= len(COLOURS)) for line in axes.lines)


def test_without_an_epoch_there_is_no_picture() -> None:
    assert learning_curves(read(record(curve=[], finished=False))) is None
    assert learning_curves([]) is None


def figure_5(groups: int, levels: int, valid: float, **changes: Any) -> Record:
    preset = f"figure5-g{groups}-k{levels}"
    return record(preset, model=ablation(groups, levels), perplexity={"valid": valid, "test": 1.0}, **changes)


def test_levels_are_lines_over_the_reduction_of_recurrent_parameters() -> None:
    runs = [figure_5(4, 1, 84.0), figure_5(1, 1, 75.0), figure_5(2, 1, 79.0), figure_5(1, 2, 76.0), record()]
    figure = levels_and_groups(read(*runs))
    assert figure is not None
    (axes,) = figure.axes
    # Weights a gate, N = M = 600: 600 x 600 / g of the context, and of the input 600 x 600, or 600 x 525 with K = 2.
    lstm = 600 * 600 + 600 * 600 + 2 * 600
    first = [100 * (1 - (600 * 600 + 600 * 600 / g + 2 * 600) / lstm) for g in (1, 2, 4)]
    second = 100 * (1 - (600 * 525 + 600 * 600 + 2 * 600) / lstm)
    drawn = named(axes)
    assert list(drawn) == legend(axes) == ["K = 1", "K = 2"]
    assert drawn["K = 1"][0] == pytest.approx(first)
    assert drawn["K = 1"][1] == [75.0, 79.0, 84.0]
    assert drawn["K = 2"][0] == pytest.approx([second])
    assert drawn["K = 2"][1] == [76.0]
    assert [text.get_text() for text in axes.texts] == ["g=1", "g=2", "g=4", "g=1"]
    assert axes.get_xlabel() == "reduction of recurrent parameters relative to the LSTM"
    assert axes.get_ylabel() == "validation perplexity"


def test_seeds_are_one_point_at_their_mean_and_corpora_are_apart() -> None:
    runs = [
        figure_5(2, 2, 80.0),
        figure_5(2, 2, 83.0, seed=2),
        figure_5(2, 2, 98.0) | {"data": record("", "wikitext-2")["data"]},
    ]
    figure = levels_and_groups(read(*runs))
    assert figure is not None
    assert [(axes.get_title(), named(axes)["K = 2"][1]) for axes in figure.axes] == [
        ("Levels and groups (ptb)", [81.5]),
        ("Levels and groups (wikitext-2)", [98.0]),
    ]


def test_fewer_than_two_finished_runs_of_figure_5_are_no_picture() -> None:
    assert levels_and_groups(read(figure_5(1, 1, 75.0), record(), record("small"))) is None
    assert levels_and_groups(read(figure_5(1, 1, 75.0), figure_5(1, 2, 75.0, finished=False))) is None


def test_a_picture_is_the_same_bytes_each_time_and_a_formula_in_a_name_is_a_name() -> None:
    def draw() -> bytes:
        return png(curves_of(record("small") | {"preset": "$\\frac{1$"}))

    pixels = imread(io.BytesIO(draw()))
    assert pixels.shape[1] == 1600
    assert np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).shape[0] > 10
    assert draw() == draw()


def test_characters_that_the_font_lacks_are_drawn_without_a_warning() -> None:
    one = record("small", data="ptb") | {"data": {"name": "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "sha256": {}}}
    assert png(curves_of(one)) != png(curves_of(record("small")))
