"""A folder of bundles with engines in numpy, followed closely."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.models.bundles import HILLS, House, load


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Two bundles, `sea` and `hills`, both named in the file, the first as the default."""
    monkeypatch.setattr("app.engines.load_engine", load)
    monkeypatch.setattr("app.models.keeper.POLL_SECONDS", 0.02)
    monkeypatch.setattr("app.models.keeper.RETIRED_SECONDS", 0.05)
    house = House(tmp_path)
    house.bundle("sea")
    house.bundle("hills", HILLS)
    house.name("sea", sea="sea", hills="hills")
    return house
