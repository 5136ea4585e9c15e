"""What a run's folder holds: whether there is a run, how far its checkpoint is, and what a killed process left.

Boundary: a folder in, plain answers out. The files are written by `model.checkpoint` and `training.resume`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.checkpoint import RECORD, read_record
from training.resume import FILE as RESUME_FILE


def is_occupied(out: Path) -> bool:
    """Whether a folder already holds a run, finished or not."""
    return (out / RESUME_FILE).exists() or (out / RECORD).exists()


def recorded_curve(out: Path) -> list[dict[str, Any]]:
    """The epochs that the record beside the checkpoint tells of; none where there is no checkpoint."""
    curve: list[dict[str, Any]] = read_record(out).get("curve", []) if (out / RECORD).exists() else []
    return curve
