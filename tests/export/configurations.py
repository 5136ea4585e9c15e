"""Configurations that between them have everything a model can be made of, and any that there can be."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

TRANSFORMS = ["linear", "grouped", "pyramidal"]
CONFIGS: list[dict[str, Any]] = [
    {"input_transform": i, "context_transform": c, "levels": 3} for i, c in itertools.product(TRANSFORMS, TRANSFORMS)
]
CONFIGS += [
    {"subsampling": s, "context_transform": c, "levels": 3, "hidden_size": m}
    for s, c, m in itertools.product(["skip", "max", "convolution"], ["grouped", "pyramidal"], [16, 12])
]
CONFIGS += [
    {"levels": 4, "average_kernels": "paper", "hidden_size": 20},
    {"levels": 2, "split": "equal", "residual": False, "hidden_size": 12},
    {"levels": 1, "groups": 1, "residual": False, "hidden_size": 12},
    {"embedding_size": 8, "hidden_size": 8, "layers": 1, "groups": 2},
    {"embedding_size": 1, "hidden_size": 1, "layers": 1, "groups": 1, "levels": 1, "vocabulary_size": 2},
    {"layers": 4, "hidden_size": 12},
]
CONFIGS += [{"mogrifier_rounds": rounds, "layers": 3} for rounds in range(1, 6)]
CONFIGS += [
    {"mogrifier_rounds": rounds, "mogrifier_rank": rank, "groups": groups, "subsampling": subsampling, "levels": 3}
    for rounds, rank, groups, subsampling in [
        (1, 3, 1, "average"),
        (4, 3, 4, "convolution"),
        (5, 5, 1, "max"),
        (4, None, 1, "convolution"),
        (5, None, 4, "max"),
        (3, 1, 2, "skip"),
    ]
]
CONFIGS += [
    {"mogrifier_rounds": 2, "input_transform": "grouped", "context_transform": "pyramidal", "subsampling": "max"},
    {"mogrifier_rounds": 3, "input_transform": "linear", "context_transform": "linear", "hidden_size": 12},
    {"softmaxes": 2},
    {"softmaxes": 5, "layers": 1, "hidden_size": 12},
    {"mogrifier_rounds": 4, "softmaxes": 3, "hidden_size": 12},
]

FIELDS = st.fixed_dictionaries(
    {
        "vocabulary_size": st.integers(2, 60),
        "embedding_size": st.integers(1, 24),
        "hidden_size": st.integers(1, 24),
        "layers": st.integers(1, 3),
        "groups": st.integers(1, 4),
        "levels": st.integers(1, 4),
        "input_transform": st.sampled_from(TRANSFORMS),
        "context_transform": st.sampled_from(TRANSFORMS),
        "split": st.sampled_from(["geometric", "equal"]),
        "subsampling": st.sampled_from(["average", "skip", "max", "convolution"]),
        "average_kernels": st.sampled_from(["released", "paper"]),
        "residual": st.booleans(),
        "mogrifier_rounds": st.integers(0, 5),
        "mogrifier_rank": st.none() | st.integers(1, 9),
        "softmaxes": st.integers(1, 5),
    }
)
