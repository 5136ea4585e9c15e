"""Engines run a model: ids and arrays in, hidden vectors and probabilities out."""

from __future__ import annotations

from app.engines.base import Engine
from app.engines.choice import load_engine

__all__ = ["Engine", "load_engine"]
