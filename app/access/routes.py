"""The names by which settings and keys speak of routes.

Boundary: paths to names. A path that is in none has no name, and is for nobody without a key.
"""

from __future__ import annotations

from enum import StrEnum

from app.openai_errors import PREFIX


class RouteGroup(StrEnum):
    """Routes that are opened, or allowed to a key, together."""

    PROBES = "probes"
    METRICS = "metrics"
    DOCS = "docs"
    PLAYGROUND = "playground"
    MODEL = "model"
    TOKENIZER = "tokenizer"
    PREDICT = "predict"
    PERPLEXITY = "perplexity"
    SESSIONS = "sessions"
    COMPLETIONS = "completions"


_PATHS = {
    "/metrics": RouteGroup.METRICS,
    "/docs": RouteGroup.DOCS,
    "/docs/oauth2-redirect": RouteGroup.DOCS,
    "/openapi.json": RouteGroup.DOCS,
    "/": RouteGroup.PLAYGROUND,
    "/model": RouteGroup.MODEL,
    f"{PREFIX}/models": RouteGroup.MODEL,
    "/tokenize": RouteGroup.TOKENIZER,
    "/detokenize": RouteGroup.TOKENIZER,
    "/tokenizer_info": RouteGroup.TOKENIZER,
    "/predict": RouteGroup.PREDICT,
    "/perplexity": RouteGroup.PERPLEXITY,
    "/sessions": RouteGroup.SESSIONS,
    f"{PREFIX}/completions": RouteGroup.COMPLETIONS,
}
_BEGINNINGS = {
    "/health/": RouteGroup.PROBES,
    "/static/": RouteGroup.PLAYGROUND,
    "/static-offline-docs/": RouteGroup.DOCS,
    f"{PREFIX}/models/": RouteGroup.MODEL,
    "/sessions/": RouteGroup.SESSIONS,
}


def group_of(path: str) -> RouteGroup | None:
    """The group of a request's path as the router sees it, decoded and not made shorter; None where it has none."""
    if found := _PATHS.get(path):
        return found
    return next((group for beginning, group in _BEGINNINGS.items() if path.startswith(beginning)), None)
