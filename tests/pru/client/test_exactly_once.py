"""An answer is lost after the service did what was asked: the client asks again, and it has happened once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pru import AsyncPRUClient, ConflictError, ConnectionFailedError, PRUClient
from tests.app.processes import Service
from tests.pru.client.network import Cut, Network, network_to


@pytest.fixture
def network(service: Service) -> Iterator[tuple[Network, str]]:
    with network_to(service.port) as it:
        yield it


def test_changes_whose_answer_is_lost_happen_once(
    service: Service, network: tuple[Network, str], waits: list[float]
) -> None:
    lossy, url = network
    with PRUClient(url) as client, PRUClient(service.url) as near:
        expected = near.perplexity("is small", context="the harbour", return_tokens=True).results[0].tokens[:2]
        lossy.cuts.extend([Cut(0), Cut(20)])
        session = client.session("the harbour")
        assert len(waits) == 2
        lossy.cuts.extend([Cut(0), Cut(100)])
        read = session.append("is small")
        assert len(waits) == 4
        assert [token.log_probability for token in read.tokens] == pytest.approx(
            [token.log_probability for token in expected], abs=1e-5
        )
        assert read.position == session.position == near.attach(session.id).position == 4
        lossy.cuts.append(Cut(0))
        assert session.continue_(max_tokens=3).position == near.attach(session.id).position == 7
        lossy.cuts.append(Cut(0))
        assert session.rewind(5).position == 5
        lossy.cuts.append(Cut(0))
        fork = session.fork()
        lossy.cuts.append(Cut(0))
        moved = client.import_session(fork.export())
        lossy.cuts.append(Cut(0))
        moved.close()
        assert len(waits) == 9
        assert near.attach(session.id).position == near.attach(fork.id).position == 5


@pytest.mark.anyio
async def test_asyncio_appends_once_whose_answer_is_lost(
    service: Service, network: tuple[Network, str], waits: list[float]
) -> None:
    lossy, url = network
    async with AsyncPRUClient(url) as client:
        lossy.cuts.append(Cut(0))
        session = await client.session("the harbour")
        lossy.cuts.extend([Cut(0), Cut(100)])
        assert (await session.append("is small")).position == 4
        lossy.cuts.append(Cut(0))
        assert (await session.continue_(max_tokens=3)).position == 7
    assert len(waits) == 4
    with PRUClient(service.url) as near:
        assert near.attach(session.id).position == 7


def test_a_change_given_up_after_it_happened_is_found_out_by_the_next_one(
    service: Service, network: tuple[Network, str], waits: list[float]
) -> None:
    lossy, url = network
    with PRUClient(url, max_retries=1) as client:
        session = client.session("the harbour")
        lossy.cuts.extend([Cut(0), Cut(0)])
        with pytest.raises(ConnectionFailedError, match="whether the session was changed is not known"):
            session.append("is")
        assert session.position == 2
        with pytest.raises(ConflictError) as found:
            session.append("was")
        assert found.value.position == 3
        assert session.refresh().position == 3
        assert session.append("small").position == 4
