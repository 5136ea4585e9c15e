"""What a run's folder holds: whether there is a run, how far its checkpoint is, and what a killed process left.

Boundary: a folder in, plain answers out. The files are written by `model.checkpoint` and `training.resume`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.checkpoint import RECORD, read_record
from training.resume import FILE as RESUME_FILE

UNVALIDATED = "holds weights that no validation has seen"
"""Of a checkpoint that was saved in the first epoch."""


def is_occupied(out: Path) -> bool:
    """Whether a folder already holds a run, finished or not."""
    return (out / RESUME_FILE).exists() or (out / RECORD).exists()


def last_good(out: Path) -> str:
    """What a run that cannot go on leaves to be used, in words."""
    if not (out / RECORD).exists():
        return "there is no checkpoint yet"
    return f"the last good checkpoint is {out}" if recorded_curve(out) else f"{out} {UNVALIDATED}"


def how_to_go_on(out: Path) -> str:
    """What to do once what stopped a run is mended."""
    if (out / RESUME_FILE).exists():
        return f"--resume goes on from what {out} last saved"
    return "train again: nothing was saved yet"


def recorded_curve(out: Path) -> list[dict[str, Any]]:
    """The epochs that the record beside the checkpoint tells of; none where there is no checkpoint."""
    curve: list[dict[str, Any]] = read_record(out).get("curve", []) if (out / RECORD).exists() else []
    return curve
