"""Fixtures of the service's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
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


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the service does."""
    return "asyncio"
