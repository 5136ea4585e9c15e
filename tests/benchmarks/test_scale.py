"""Comparisons that need programs which a machine may lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import scale_rows


def test_without_redis_no_row_is_measured_and_it_is_said_which_are_left_out_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    rows, left_out = scale_rows(tmp_path / "no bundle", tmp_path, rounds=1)
    assert rows == []
    assert left_out == [
        "left out, since redis-server is not installed: sessions in Redis against sessions in SQLite, "
        "and two replicas against one"
    ]
