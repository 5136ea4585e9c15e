"""Results of the analyses as CSV tables.

Boundary: results by the names of their models in, bytes of a file out. Numbers have six significant digits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.vocabulary import Vocabulary
from training.analysis.attribution import Attribution
from training.analysis.coverage import THRESHOLD, coverage
from training.analysis.embedding_variance import Variance
from training.analysis.entropy import BIN, histogram
from training.analysis.saliency import normalised, saliency

Entropies = Mapping[str, npt.NDArray[np.float64]]
"""Entropies `[contexts]` of each model."""


def entropy_histogram(entropies: Entropies, vocabulary_size: int) -> bytes:
    """A row a bin: its ends in nats, and how many contexts of each model lie in it."""
    counts = [histogram(of_model, vocabulary_size) for of_model in entropies.values()]
    rows = ((bin_ * BIN, (bin_ + 1) * BIN, *row) for bin_, row in enumerate(zip(*counts, strict=True)))
    return _csv(["from", "to", *entropies], rows)


def entropy_means(entropies: Entropies) -> bytes:
    """A row a model: its mean entropy in nats, and over how many contexts."""
    return _csv(
        ["model", "contexts", "mean_entropy"],
        ((name, len(of_model), of_model.mean()) for name, of_model in entropies.items()),
    )


def embedding_variances(variances: Mapping[str, Sequence[Variance]]) -> bytes:
    """A row for each model, category and level, with the number of words counted."""
    return _csv(
        ["model", "category", "level", "words", "variance"],
        ((name, *row) for name, rows in variances.items() for row in rows),
    )


def saliencies(attributions: Mapping[str, Sequence[Attribution]], vocabulary: Vocabulary) -> bytes:
    """A row for each model, sequence, predicted word by its rank, and word; all of them count from 1."""
    return _csv(
        ["model", "sequence", "rank", "predicted", "position", "word", "saliency", "normalised_saliency"],
        (
            (name, sequence, rank, vocabulary.word_of(predicted), position, vocabulary.word_of(token_id), *values)
            for name, of_model in attributions.items()
            for sequence, attribution in enumerate(of_model, start=1)
            for rank, (predicted, gradients) in enumerate(
                zip(attribution.top, attribution.gradients_of_top, strict=True), start=1
            )
            for position, (token_id, *values) in enumerate(_salient_words(attribution.ids, gradients), start=1)
        ),
    )


def _salient_words(ids: Sequence[int], gradients: Tensor) -> Iterable[tuple[int, float, float]]:
    values = saliency(gradients)
    return zip(ids, values.tolist(), normalised(values).tolist(), strict=True)


def predictions(attributions: Mapping[str, Sequence[Attribution]], vocabulary: Vocabulary) -> bytes:
    """A row for each model, sequence and predicted word, likeliest first."""
    return _csv(
        ["model", "sequence", "rank", "word", "probability"],
        (
            (name, sequence, rank, vocabulary.word_of(token_id), probability)
            for name, of_model in attributions.items()
            for sequence, attribution in enumerate(of_model, start=1)
            for rank, (token_id, probability) in enumerate(
                zip(attribution.top, attribution.probabilities, strict=True), start=1
            )
        ),
    )


def gradient_coverage(attributions: Mapping[str, Attribution]) -> bytes:
    """A row a model: its coverage of one sequence, by which threshold, and the largest |gradient|."""
    return _csv(
        ["model", "threshold", "coverage", "largest_gradient"],
        (
            (name, THRESHOLD, coverage(attribution.gradients), attribution.gradients.abs().max().item())
            for name, attribution in attributions.items()
        ),
    )


def gradients(attributions: Mapping[str, Attribution], vocabulary: Vocabulary) -> bytes:
    """A row for each model, word of one sequence and dimension: |gradient|. Positions and dimensions count from 1."""
    return _csv(
        ["model", "position", "word", "dimension", "gradient"],
        (
            (name, position, vocabulary.word_of(token_id), dimension, size)
            for name, attribution in attributions.items()
            for position, (token_id, sizes) in enumerate(
                zip(attribution.ids, attribution.gradients.abs().tolist(), strict=True), start=1
            )
            for dimension, size in enumerate(sizes, start=1)
        ),
    )


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return table.getvalue().encode()
