"""What calls may ask for besides their text, as keyword arguments; what is left out has the service's default.

Boundary: names and types. Ranges and meanings are those of the requests in `app.schemas` and `app.session_schemas`;
the service judges them.
"""

from __future__ import annotations

from typing import TypedDict


class SuggestOptions(TypedDict, total=False):
    """Which of the next words to return (`app.schemas.Suggesting`)."""

    k: int
    prefix: str
    words_only: bool
    include_special: bool


class PredictOptions(SuggestOptions, total=False):
    """The same, and of which model (`app.schemas.PredictRequest`)."""

    model: str | None


class ScoreOptions(TypedDict, total=False):
    """How to score, with which model, and what to return (`app.schemas.PerplexityRequest`)."""

    context: str
    return_tokens: bool
    return_words: bool
    return_entropies: bool
    include_eos: bool
    oov_penalty: float | None
    model: str | None


class WriteOptions(TypedDict, total=False):
    """How to write on (`app.session_schemas.ContinueRequest`)."""

    max_tokens: int
    temperature: float
    top_k: int | None
    top_p: float
    seed: int | None
    stop: str | list[str]
    include_unk: bool
    commit: bool
