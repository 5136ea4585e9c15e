"""A real service for the client's tests, and time that passes at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.app.processes import SERVE_SMALL, Service, served


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A process that serves a small model."""
    store = tmp_path_factory.mktemp("sessions") / "sessions.db"
    with served("-c", SERVE_SMALL, session_store=f"sqlite:///{store}") as it:
        it.wait_until_ready()
        yield it


@pytest.fixture(autouse=True)
def _neither_address_nor_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRU_URL", "PRU_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that clients would have waited between attempts; they wait none."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("pru.client.connection.time.sleep", waited.append)
    monkeypatch.setattr("pru.client.connection.asyncio.sleep", sleep)
    return waited


@pytest.fixture
def anyio_backend() -> str:
    """The asynchronous client is for asyncio."""
    return "asyncio"
