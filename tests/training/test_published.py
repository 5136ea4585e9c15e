"""The paper's figures as data: complete, found by preset and corpus, static and adaptive apart."""

from __future__ import annotations

import pytest

from training.published import ADAPTIVE, PUBLISHED, Section, find_adaptive, find_published


@pytest.mark.parametrize(
    ("section", "split", "total"),
    [
        # Sums of the columns of the paper's tables, added up apart from the code: PTB and then WikiText-2.
        (Section.STANDARD, "valid", (410.35, 465.64)),
        (Section.STANDARD, "test", (397.12, 447.15)),
        (Section.ADVANCED, "valid", (241.61, 275.77)),
        (Section.ADVANCED, "test", (233.08, 264.13)),
        (Section.TRANSFORMATIONS, "valid", (467.44, 561.14)),
        (Section.SUBSAMPLING, "valid", (318.14, 378.91)),
    ],
)
def test_the_columns_add_up_to_those_of_the_paper(section: Section, split: str, total: tuple[float, float]) -> None:
    for data, expected in zip(("ptb", "wikitext-2"), total, strict=True):
        column = [entry.perplexity(split) for entry in PUBLISHED if (entry.section, entry.data) == (section, data)]
        assert sum(value for value in column if value is not None) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("preset", "data", "row", "figures"),
    [
        ("pru-g4", "ptb", "PRU (g = 4, K = 2, M = 1400)", (64.76, 62.42)),
        ("lstm-1400", "wikitext-2", "LSTM (M = 1400)", (77.55, 74.44)),
        ("awd-pru-g4-finetuned", "ptb", "AWD-PRU (g = 4, K = 2, M = 1400)-finetuned", (58.46, 56.56)),
        ("awd-pru-g1", "wikitext-2", "AWD-PRU (g = 1, K = 2, M = 1000)", (71.84, 68.6)),
        ("awd-pru-g4", "ptb", "AWD-PRU (g = 4, K = 2, M = 1400)", (60.62, 58.33)),
        ("table3-r2", "ptb", "R2: context GLT, input GLT", (84.38, None)),
        ("table3-r3", "wikitext-2", "R3: context GLT, input PT", (99.57, None)),
        ("table3-r5", "ptb", "R5: context PT, input PT", (75.80, None)),
        ("table4-max", "wikitext-2", "Max pool", (107.63, None)),
        ("figure5-g4-k3", "ptb", "g = 4, K = 3", (None, None)),
    ],
)
def test_a_preset_is_found_on_its_corpus(
    preset: str, data: str, row: str, figures: tuple[float | None, float | None]
) -> None:
    entry = find_published(preset, data)
    assert entry is not None
    assert (entry.row, (entry.valid, entry.test)) == (row, figures)


@pytest.mark.parametrize(
    ("preset", "data"),
    [("small", "ptb"), ("pru-g4", "mine"), ("pru-g4-finetuned", "ptb")],
)
def test_what_the_paper_does_not_report_is_not_found(preset: str, data: str) -> None:
    assert find_published(preset, data) is None


def test_every_model_stands_once_for_each_corpus() -> None:
    keys = [(entry.preset, entry.data) for entry in PUBLISHED]
    assert len(set(keys)) == len(keys)
    presets = {preset for preset, _ in keys}
    assert set(keys) == {(preset, data) for preset in presets for data in ("ptb", "wikitext-2")}
    assert sum(preset.startswith("figure5-") for preset in presets) == 12


def test_adaptive_figures_are_not_among_the_static_ones() -> None:
    found = find_adaptive("pru-g4", "ptb", "test", "dynamic")
    assert found is not None
    assert found.perplexity == 55.23
    assert find_adaptive("pru-g4", "ptb", "test", "static") is None
    assert find_adaptive("pru-g4", "ptb", "valid", "dynamic") is None
    static = {value for entry in PUBLISHED for value in (entry.valid, entry.test)}
    assert static.isdisjoint(entry.perplexity for entry in ADAPTIVE)


def test_another_schedule_of_a_model_is_compared_with_the_model() -> None:
    assert find_published("awd-pru-g4-one-cycle", "ptb") == find_published("awd-pru-g4", "ptb")
    adaptive = find_adaptive("pru-g4-one-cycle", "ptb", "test", "dynamic")
    assert adaptive is not None
    assert adaptive.perplexity == 55.23
