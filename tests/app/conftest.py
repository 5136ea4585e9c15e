"""Fixtures of the service's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from tests.app.memory_store import MemoryStore
from tests.app.personal import SETTINGS
from tests.app.serving import serving


@pytest.fixture(scope="module", autouse=True)
def _default_settings() -> Iterator[None]:
    """Keep the settings of whoever runs the tests, and where he sends traces, out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(f"PRU_{name.upper()}", raising=False)
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def client(_default_settings: None) -> Iterator[TestClient]:
    """A client of a ready service with default settings, one for all tests of a file."""
    with serving() as ready:
        yield ready


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """Where the sessions of a file's tests are."""
    return MemoryStore()


@pytest.fixture(scope="module")
def sessions(store: MemoryStore, _default_settings: None) -> Iterator[TestClient]:
    """A client of a ready service whose sessions are in `store`."""
    with serving(store=store) as ready:
        yield ready


@pytest.fixture(scope="module")
def learning(store: MemoryStore, _default_settings: None) -> Iterator[TestClient]:
    """The same of one whose personal sessions show what they learn in a few words."""
    with serving(store=store, **SETTINGS) as ready:
        yield ready


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the service does."""
    return "asyncio"
