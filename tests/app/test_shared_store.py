"""Two servers with their sessions in one store: any goes on with any session, and of two at once none is lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from tests.app.sharing import WORDS, check_reads_as, post, two_servers
from tests.redis_server import redis_server


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _default_settings: None
) -> Iterator[list[httpx2.Client]]:
    """Clients of two servers that share their sessions."""
    with ExitStack() as running:
        if request.param == "redis":
            store = running.enter_context(redis_server()).url
        else:
            store = f"sqlite:///{tmp_path_factory.mktemp('sessions') / 'sessions.db'}"
        yield running.enter_context(two_servers(store))


@pytest.mark.parametrize("maker", [0, 1])
def test_a_session_made_on_one_server_is_read_on_rewound_and_forked_on_the_other(
    servers: list[httpx2.Client], maker: int
) -> None:
    here, there = servers[maker], servers[1 - maker]
    session_id = post(here, "/sessions", text="the harbour is small")["session_id"]
    path = f"/sessions/{session_id}"
    assert post(there, f"{path}/append", text=", but the boats that leave")["position"] == 10
    assert post(there, f"{path}/rewind", position=6)["position"] == 6
    fork = post(there, f"{path}/fork")["session_id"]
    assert post(here, f"{path}/append", text="sea is")["position"] == 8
    check_reads_as(servers, session_id, "the harbour is small , but sea is")
    assert post(here, f"/sessions/{fork}/append", text="known")["position"] == 7
    check_reads_as(servers, fork, "the harbour is small , but known")


def test_a_session_goes_from_server_to_server_and_has_the_bytes_it_would_have_had_on_one(
    servers: list[httpx2.Client],
) -> None:
    def exports(clients: Iterator[httpx2.Client]) -> tuple[bytes, bytes, str]:
        """What a session and its fork are, and what was written, where each step is another client's."""
        session_id = post(next(clients), "/sessions", text="the harbour is small")["session_id"]
        path = f"/sessions/{session_id}"
        post(next(clients), f"{path}/append", text=", but the boats that leave")
        post(next(clients), f"{path}/rewind", position=6)
        post(next(clients), f"{path}/append", text="sea is")
        written = post(next(clients), f"{path}/continue", max_tokens=5, seed=3)["text"]
        fork = post(next(clients), f"{path}/fork")["session_id"]
        post(next(clients), f"/sessions/{fork}/append", text="known")
        found = [next(clients).get(f"/sessions/{name}/export").content for name in (session_id, fork)]
        for name in (session_id, fork):
            assert next(clients).delete(f"/sessions/{name}").status_code == 204
            assert next(clients).get(f"/sessions/{name}").status_code == 404
        return found[0], found[1], written

    assert exports(itertools.cycle(servers)) == exports(itertools.repeat(servers[0]))


def test_two_servers_that_append_to_one_session_at_once_make_one_text_of_all_they_acknowledged(
    servers: list[httpx2.Client],
) -> None:
    session_id = post(servers[0], "/sessions")["session_id"]
    parts = [" ".join(WORDS[n % 7 :][: 1 + n % 3]) for n in range(60)]

    def append(n: int) -> tuple[int, int, str]:
        """The positions that one part of the text was read from and to."""
        answer = post(servers[n % 2], f"/sessions/{session_id}/append", text=parts[n])
        return answer["position"] - len(answer["tokens"]), answer["position"], parts[n]

    with ThreadPoolExecutor(6) as pool:
        read = sorted(pool.map(append, range(60)))
    # Each began where another ended, and no two at one place.
    assert [start for start, _, _ in read] == [0] + [stop for _, stop, _ in read[:-1]]
    assert len({stop for _, stop, _ in read}) == 60
    check_reads_as(servers, session_id, " ".join(part for _, _, part in read))


def test_of_two_servers_that_are_told_where_to_append_one_appends_and_one_is_told_it_moved(
    servers: list[httpx2.Client],
) -> None:
    session_id = post(servers[0], "/sessions", text="the")["session_id"]
    for place in range(1, 21):

        def append(client: httpx2.Client, place: int = place) -> httpx2.Response:
            return client.post(f"/sessions/{session_id}/append", json={"text": "sea", "expected_position": place})

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(append, servers))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert [answer.json()["position"] for answer in answers] == [place + 1, place + 1]
    check_reads_as(servers, session_id, "the" + 20 * " sea")
