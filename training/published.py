"""The paper's own figures, by preset and corpus: word-level perplexities of Mehta et al. (EMNLP 2018).

Boundary: data only, and the one place where a figure is typed by hand. Static and adaptive figures are kept apart.
What Figure 5 plots is in no table or sentence of the paper, so its presets stand here without figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

PTB, WIKITEXT_2 = "ptb", "wikitext-2"
"""The corpora of the paper, by their names in a record."""


class Section(StrEnum):
    """The part of the paper that a model is reported in."""

    STANDARD = "Table 1: standard dropout"
    ADVANCED = "Table 1: advanced dropouts"
    TRANSFORMATIONS = "Table 3: transformations of input and context"
    SUBSAMPLING = "Table 4: sub-sampling"
    LEVELS_AND_GROUPS = "Figure 5: levels and groups"


@dataclass(frozen=True)
class Published:
    """One model on one corpus: its preset, where the paper reports it, and the perplexities it gives, if any."""

    preset: str
    data: str
    section: Section
    row: str
    """The row as the paper names it; the column's name in Table 4."""
    valid: float | None = None
    test: float | None = None

    def perplexity(self, split: str) -> float | None:
        """The published figure of `valid` or `test`, where there is one."""
        return {"valid": self.valid, "test": self.test}.get(split)


@dataclass(frozen=True)
class PublishedAdaptive:
    """One model under an evaluation that adapts to the text it reads (section 4.2, "Inference")."""

    preset: str
    data: str
    split: str
    evaluation: str
    """As `training.evaluate.Evaluation.method` names it."""
    perplexity: float


# Preset, the row's name, validation and test on PTB, validation and test on WikiText-2.
_TABLE_1 = {
    Section.STANDARD: (
        ("lstm-1000", "LSTM (M = 1000)", 68.57, 66.29, 78.93, 75.08),
        ("lstm-1200", "LSTM (M = 1200)", 69.17, 67.16, 77.93, 74.48),
        ("lstm-1400", "LSTM (M = 1400)", 70.88, 68.55, 77.55, 74.44),
        ("pru-g1", "PRU (g = 1, K = 2, M = 1000)", 69.8, 67.78, 79.15, 76.59),
        ("pru-g2", "PRU (g = 2, K = 2, M = 1200)", 67.17, 64.92, 76.62, 73.79),
        ("pru-g4", "PRU (g = 4, K = 2, M = 1400)", 64.76, 62.42, 75.46, 72.77),
    ),
    Section.ADVANCED: (
        ("awd-pru-g1", "AWD-PRU (g = 1, K = 2, M = 1000)", 61.72, 59.54, 71.84, 68.6),
        ("awd-pru-g2", "AWD-PRU (g = 2, K = 2, M = 1200)", 60.81, 58.65, 68.57, 65.7),
        ("awd-pru-g4", "AWD-PRU (g = 4, K = 2, M = 1400)", 60.62, 58.33, 68.17, 65.3),
        ("awd-pru-g4-finetuned", "AWD-PRU (g = 4, K = 2, M = 1400)-finetuned", 58.46, 56.56, 67.19, 64.53),
    ),
}

# Preset, the row's name, validation on PTB and on WikiText-2 (section 4.4 reports validation alone).
_ABLATIONS = {
    Section.TRANSFORMATIONS: (
        ("table3-r1", "R1: context LT, input LT", 74.80, 89.30),
        ("table3-r2", "R2: context GLT, input GLT", 84.38, 104.13),
        ("table3-r3", "R3: context GLT, input PT", 82.67, 99.57),
        ("table3-r4", "R4: context LT, input PT", 74.18, 88.31),
        ("table3-r5", "R5: context PT, input PT", 75.80, 90.56),
        ("table3-r6", "R6: context LT, input PT without residual", 75.61, 89.27),
    ),
    Section.SUBSAMPLING: (
        ("table4-skip", "Skip", 75.12, 89.24),
        ("table4-max", "Max pool", 87.6, 107.63),
        ("table4-average", "Avg. pool", 73.86, 88.88),
        ("table4-convolution", "Convolution", 81.56, 93.16),
    ),
}

_FIGURE_5 = [(f"figure5-g{g}-k{k}", f"g = {g}, K = {k}") for k in (1, 2, 3, 4) for g in (1, 2, 4)]


def _static() -> Iterator[Published]:
    for section, models in _TABLE_1.items():
        for preset, row, ptb_valid, ptb_test, wikitext_valid, wikitext_test in models:
            yield Published(preset, PTB, section, row, ptb_valid, ptb_test)
            yield Published(preset, WIKITEXT_2, section, row, wikitext_valid, wikitext_test)
    for section, ablations in _ABLATIONS.items():
        for preset, row, ptb_valid, wikitext_valid in ablations:
            yield Published(preset, PTB, section, row, ptb_valid)
            yield Published(preset, WIKITEXT_2, section, row, wikitext_valid)
    for preset, row in _FIGURE_5:
        for data in (PTB, WIKITEXT_2):
            yield Published(preset, data, Section.LEVELS_AND_GROUPS, row)


PUBLISHED = tuple(_static())
"""Every model of the paper on both corpora, in the order of its tables."""

ADAPTIVE = (
    PublishedAdaptive("pru-g4", PTB, "test", "dynamic", 55.23),
    PublishedAdaptive("lstm-1000", PTB, "test", "dynamic", 58.79),
)
"""Figures of evaluations that adapt; never to be put beside those of `PUBLISHED`."""


ONE_CYCLE = "-one-cycle"
"""Ends the name of a preset that is another's model, trained by a schedule that the paper does not have."""


def find_published(preset: str, data: str) -> Published | None:
    """What the paper reports of a preset's model on a corpus; none where it reports nothing."""
    sought = (preset.removesuffix(ONE_CYCLE), data)
    return next((entry for entry in PUBLISHED if (entry.preset, entry.data) == sought), None)


def find_adaptive(preset: str, data: str, split: str, evaluation: str) -> PublishedAdaptive | None:
    """The same of an adaptive evaluation."""
    sought = (preset.removesuffix(ONE_CYCLE), data, split, evaluation)
    return next((e for e in ADAPTIVE if (e.preset, e.data, e.split, e.evaluation) == sought), None)
