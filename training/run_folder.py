"""What a run's folder holds: whether there is a run, how far its checkpoint is, and what a killed process left.

Boundary: a folder in, plain answers out. The files are written by `model.checkpoint` and `training.resume`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.checkpoint import CONFIG, RECORD, TOKENIZER, WEIGHTS, read_record
from training.resume import FILE as RESUME_FILE


def is_occupied(out: Path) -> bool:
    """Whether a folder already holds a run, finished or not."""
    return (out / RESUME_FILE).exists() or (out / RECORD).exists()


FILES = (CONFIG, WEIGHTS, TOKENIZER, RECORD, RESUME_FILE)
"""All that the process that leads a run writes there."""


def remove_leftovers(out: Path) -> None:
    """Remove what a process killed while it wrote one of `FILES` left beside it: for the one process that writes."""
    for name in FILES:
        for path in out.glob(f".{name}.{'[0-9a-f]' * 8}.partial"):
            path.unlink(missing_ok=True)


def last_good(out: Path) -> str:
    """What a run that cannot go on leaves to be used, in words."""
    if not (out / RECORD).exists():
        return "there is no checkpoint yet"
    return f"the last good checkpoint is {out}" if _is_validated(read_record(out)) else f"{out} {_UNVALIDATED}"


def checkpoint_in_words(out: Path) -> str:
    """What a run that stopped as it should leaves."""
    record = read_record(out)
    if not _is_validated(record):
        return f"{out} {_UNVALIDATED}"
    start = record.get("best_epoch") is None
    return f"the checkpoint is {out}{', the weights it started from: no epoch was better' if start else ''}"


_UNVALIDATED = "holds weights that no validation has seen"


def _is_validated(record: dict[str, Any]) -> bool:
    return "start_perplexity" in record or bool(record.get("curve"))


def how_to_go_on(out: Path) -> str:
    """What to do once what stopped a run is mended."""
    if (out / RESUME_FILE).exists():
        return f"--resume goes on from what {out} last saved"
    return "train again: nothing was saved yet"


def recorded_curve(out: Path) -> list[dict[str, Any]]:
    """The epochs that the record beside the checkpoint tells of; none where there is no checkpoint."""
    curve: list[dict[str, Any]] = read_record(out).get("curve", []) if (out / RECORD).exists() else []
    return curve
