"""What processes that take each other's place know of what was served."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

from app.models.file import Plan
from app.models.last_served import LastServed
from app.served_model import Source

SEA = Source("sea", Path("/models/sea"), "onnx", "int8", 1)
HILLS = Source("hills", Path("/models/the hills ü"), "auto", "auto", 2)
PLAN, SHORTER = Plan("hills", {"sea": SEA, "hills": HILLS}), Plan("sea", {"sea": SEA})


def test_the_last_plan_is_what_a_process_that_was_forked_finds() -> None:
    last = LastServed()
    assert last.plan() is None
    last.keep(SHORTER)
    child = multiprocessing.get_context("fork").Process(target=last.keep, args=(PLAN,))
    child.start()
    child.join()
    assert last.plan() == PLAN
    last.keep(SHORTER)
    assert last.plan() == SHORTER


def test_a_plan_that_a_killed_process_did_not_finish_is_none() -> None:
    last = LastServed()
    last.keep(PLAN)
    size = os.fstat(last._file).st_size
    for end in range(size):
        os.ftruncate(last._file, end)
        assert last.plan() is None
        last.keep(PLAN)
    assert last.plan() == PLAN
