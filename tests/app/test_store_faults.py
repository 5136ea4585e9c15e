"""A server whose file of sessions fails: 503 says why, the rest goes on, and once it is mended nothing is lost."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from app.sessions.sqlite_file import FORMAT
from tests.app.processes import SERVE_SMALL, Service, served, served_with
from tests.app.serving import PATIENCE, until
from tests.app.sharing import check_reads_as, post, state

PAGE = 4096

SERVE_ON_A_DISK_THAT_FILLS = f"""
import os, sqlite3

class Limited(sqlite3.Connection):
    def execute(self, statement, *parameters):
        if statement.startswith("BEGIN"):
            super().execute(f"PRAGMA max_page_count = {{1 if os.path.exists(os.environ['FULL']) else 2**30}}")
        return super().execute(statement, *parameters)

plain = sqlite3.connect
sqlite3.connect = lambda path, **options: plain(path, factory=Limited, **options)
{SERVE_SMALL}
"""
"""Serves a small model; SQLite's files have no room left while there is a file of the name in FULL."""

SERVE_AS_A_USER_WITH_NO_MORE_THAN_ITS_RIGHTS = f"""
import os, sys
command = [sys.executable, "-c", {SERVE_SMALL!r}]
if os.geteuid() == 0:
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
os.execvp(command[0], command)
"""
"""Serves a small model, and may not write what its user has no right to, even where that is the superuser."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of sessions."""
    return tmp_path / "sessions.db"


@contextmanager
def client_of(service: Service) -> Iterator[httpx2.Client]:
    """A client of a ready server."""
    service.wait_until_ready()
    with httpx2.Client(base_url=service.url, timeout=PATIENCE) as client:
        yield client


def append(client: httpx2.Client, session_id: str, text: str) -> httpx2.Response:
    """Append with a key; the answer is kept, and takes room."""
    fields = {"text": text, "k": 100}
    return client.post(f"/sessions/{session_id}/append", json=fields, headers={"Idempotency-Key": "again"})


def check_refused(service: Service, response: httpx2.Response, wrong: str, path: Path) -> None:
    """A client is told what is wrong, the log where as well; the rest of the service goes on."""
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["detail"] == f"the session store {wrong}; try again later"
    failed = "the session store failed"
    # What a process printed may be read a moment later than its answer.
    until(lambda: any(line["reason"].startswith(f"{path} {wrong}; ") for line in service.events(failed)))
    assert service.ask("/predict", text="the").status_code == 200
    assert httpx2.get(f"{service.url}/health/ready").status_code == 200


def check_appended_once(client: httpx2.Client, session_id: str, before: str, text: str) -> None:
    """A request that was refused succeeds when it is sent again, and is answered the same from then on."""
    assert client.get(f"/sessions/{session_id}").json()["position"] == len(before.split())
    done = append(client, session_id, text)
    assert done.status_code == 200
    assert append(client, session_id, text).json() == done.json()
    check_reads_as([client], session_id, f"{before} {text}")


def test_a_file_that_another_program_holds_is_read_but_not_written_until_it_is_let_go(path: Path) -> None:
    with served_with(f"sqlite:///{path}") as service, client_of(service) as client:
        session_id = post(client, "/sessions", text="the")["session_id"]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            refused = append(client, session_id, "harbour")
            assert client.get(f"/sessions/{session_id}").json()["position"] == 1
        check_refused(service, refused, "is locked by another program", path)
        check_appended_once(client, session_id, "the", "harbour")


def test_a_file_that_is_no_store_is_left_alone_and_a_store_is_made_when_it_is_gone(path: Path) -> None:
    path.write_bytes(b"no database at all" * 400)
    with served_with(f"sqlite:///{path}") as service, client_of(service) as client:
        refused = client.post("/sessions", json={"text": "the"})
        check_refused(service, refused, "is damaged or not an SQLite file", path)
        assert path.read_bytes() == b"no database at all" * 400
        path.unlink()
        until(lambda: client.post("/sessions", json={"text": "the"}).status_code == 201)


def test_a_full_disk_takes_no_change_until_there_is_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = path.with_name("full")
    monkeypatch.setenv("FULL", str(full))
    with (
        served("-c", SERVE_ON_A_DISK_THAT_FILLS, session_store=f"sqlite:///{path}") as service,
        client_of(service) as client,
    ):
        session_id = post(client, "/sessions", text="the")["session_id"]
        full.touch()
        for _ in range(2):
            check_refused(service, append(client, session_id, "harbour"), "is full", path)
        full.unlink()
        check_appended_once(client, session_id, "the", "harbour")


def test_a_write_that_the_system_refuses_changes_nothing_until_it_is_granted(path: Path) -> None:
    with served_with(f"sqlite:///{path}") as service, client_of(service) as client:
        session_id = post(client, "/sessions", text="the")["session_id"]
        size = path.with_name("sessions.db-wal").stat().st_size
        before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        check_refused(service, append(client, session_id, "harbour"), "cannot be read or written", path)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, before)
        check_appended_once(client, session_id, "the", "harbour")


def test_a_file_that_may_not_be_written_is_read_and_written_again_when_it_may(path: Path) -> None:
    with served_with(f"sqlite:///{path}") as service, client_of(service) as client:
        session_id = post(client, "/sessions", text="the")["session_id"]
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    path.chmod(0o400)
    with (
        served("-c", SERVE_AS_A_USER_WITH_NO_MORE_THAN_ITS_RIGHTS, session_store=f"sqlite:///{path}") as service,
        client_of(service) as client,
    ):
        check_refused(service, append(client, session_id, "harbour"), "is read-only", path)
        assert client.get(f"/sessions/{session_id}").json()["position"] == 1
        for each in path.parent.glob("sessions.db*"):
            each.chmod(0o600)
        # What was opened to be read is let go of at the first change.
        until(lambda: client.post("/sessions", json={}).status_code == 201)
        check_appended_once(client, session_id, "the", "harbour")


def test_a_file_that_is_damaged_while_it_is_served_loses_no_session_once_it_is_mended(path: Path) -> None:
    with served_with(f"sqlite:///{path}") as service, client_of(service) as client:
        sessions = [post(client, "/sessions", text="the harbour")["session_id"] for _ in range(200)]
        hurt = post(client, f"/sessions/{sessions[100]}/append", text="is small")["session_id"]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            # All is in the file itself.
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        place = path.read_bytes().index(state(client, hurt)) // PAGE * PAGE
        before = write_over(path, place, b"\xa5" * PAGE)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            # The server reads the file anew, since another wrote to it.
            other.execute(f"PRAGMA user_version = {FORMAT}")
        answers = {session_id: client.get(f"/sessions/{session_id}") for session_id in sessions}
        lost = {session_id for session_id, answer in answers.items() if answer.status_code == 503}
        assert hurt in lost
        assert len(lost) < 100
        assert {answer.json()["position"] for name, answer in answers.items() if name not in lost} == {2}
        for refused in (answers[hurt], append(client, hurt, "but")):
            check_refused(service, refused, "is damaged or not an SQLite file", path)
        whole = next(session_id for session_id in sessions if session_id not in lost)
        assert post(client, f"/sessions/{whole}/append", text="is")["position"] == 3
        write_over(path, place, before)
        for session_id in lost - {hurt}:
            check_reads_as([client], session_id, "the harbour")
        check_reads_as([client], whole, "the harbour is")
        check_appended_once(client, hurt, "the harbour is small", "but")


def write_over(path: Path, place: int, data: bytes) -> bytes:
    """Write over a part of a file; what was there."""
    with path.open("r+b") as file:
        file.seek(place)
        before = file.read(len(data))
        file.seek(place)
        file.write(data)
    return before
