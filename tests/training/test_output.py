"""Files put into a folder together: a disk that fills up at any moment leaves what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import TrainingError
from tests.model.faults import contents, full_disk
from training.output import write_all


def test_a_full_disk_leaves_what_was_there_and_is_named_with_its_remedy(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = {name: b"new" for name in ("a.csv", "b.png", "c.md")}
    write_all(out, {"a.csv": b"old", "b.png": b"old"})
    before = contents(out)
    assert list(before.values()) == [b"old", b"old"]
    # A folder, then four calls to write each of three files, and the first that takes its place.
    for moment in range(1 + 4 * 3 + 1):
        with (
            full_disk(out, moment) as moments,
            pytest.raises(
                TrainingError, match=rf"^({out}|{out}/a.csv) cannot be written: No space left on device; mend"
            ),
        ):
            write_all(out, files)
        assert moments.struck
        assert contents(out) == before
    write_all(out, files)
    assert contents(out) == files
