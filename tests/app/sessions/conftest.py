"""Where the stores of a test are, and what time it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.sessions.records import Clock


@pytest.fixture
def clock() -> Clock:
    """The clock of every store that a test opens."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of every store that a test opens."""
    return tmp_path / "sessions.db"
