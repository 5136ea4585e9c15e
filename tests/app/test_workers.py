"""Several serving processes on one port: shared work, replaced when they end, ended together."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from app.server import listen
from model.errors import ConfigurationError
from tests.app.processes import SERVE_SLOWLY, Service, run, served
from tests.app.serving import PATIENCE, until


def two_workers() -> AbstractContextManager[Service]:
    """A small model served by two processes."""
    return served("-c", SERVE_SLOWLY, "0", workers="2")


def connections_taken(service: Service, pid: int) -> int:
    """Open connections of one process, its listener not among them."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists() or link.is_symlink()}
    established = {
        f"socket:[{fields[9]}]"
        for fields in (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[1].endswith(f":{service.port:04X}") and fields[3] == "01"
    }
    return len(sockets & established)


def test_connections_are_spread_over_all_workers() -> None:
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        clients = [httpx2.Client() for _ in range(40)]
        for client in clients:
            assert client.post(f"{service.url}/predict", json={"text": "the"}).status_code == 200
        taken = [connections_taken(service, pid) for pid in service.workers()]
        for client in clients:
            client.close()
    assert sum(taken) == 40
    assert min(taken) >= 5  # Fewer of 40 is a matter of one in a million.


def test_no_request_is_refused_while_workers_start() -> None:
    with two_workers() as service:
        answers = [httpx2.post(f"{service.url}/predict", json={"text": "the"}, timeout=PATIENCE) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}


def test_a_worker_that_is_killed_is_replaced_and_whatever_connects_meanwhile_is_answered() -> None:
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        before = service.workers()
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        until(lambda: bool(service.events("a worker ended")))
        statuses = {httpx2.get(f"{service.url}/health/live", timeout=PATIENCE).status_code for _ in range(20)}
        until(lambda: len(service.events("ready")) == 3)
        after = service.workers()
        [ended] = service.events("a worker ended")
    assert statuses == {200}
    assert (ended["worker"], ended["status"], ended["was_ready"]) == (killed, -signal.SIGKILL, True)
    assert len(after) == 2
    assert after & before == before - {killed}


def test_a_replacement_that_dies_before_it_is_ready_is_replaced_in_its_turn() -> None:
    with served("-c", SERVE_SLOWLY, "0.1", workers="2") as service:
        until(lambda: len(service.events("ready")) == 2)
        before = service.workers()
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(service.workers() - before) == 1)
        [replacement] = service.workers() - before
        os.kill(replacement, signal.SIGKILL)
        until(lambda: len(service.events("ready")) == 3)
        assert [line["was_ready"] for line in service.events("a worker ended")] == [True, False]
        assert service.workers() & before == {max(before)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_workers_and_the_process_with_status_0(number: signal.Signals) -> None:
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        workers = service.workers()
        service.process.send_signal(number)
        assert service.process.wait(PATIENCE) == 0
        until(lambda: len(service.events("stopped")) == 2)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{service.url}/health/live")
    assert len(workers) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_second_signal_ends_workers_that_hang() -> None:
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        workers = service.workers()
        os.kill(min(workers), signal.SIGSTOP)
        service.process.terminate()
        until(lambda: len(service.events("stopped")) == 1)
        assert service.process.poll() is None
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_is_told_alone_to_end_leaves_what_is_new_to_the_next_and_finishes_what_it_has() -> None:
    body = b'{"text": "the"}'
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        before = service.workers()
        with socket.create_connection(("127.0.0.1", service.port)) as busy:
            busy.sendall(head.encode() + body[:5])
            until(lambda: any(connections_taken(service, pid) for pid in before))
            [leaving] = [pid for pid in before if connections_taken(service, pid)]
            os.kill(leaving, signal.SIGTERM)
            until(lambda: len(service.events("ready")) == 3)
            assert len(service.workers() - before) == 1
            statuses = {httpx2.get(f"{service.url}/health/ready", timeout=PATIENCE).status_code for _ in range(20)}
            assert leaving in service.workers()
            busy.sendall(body[5:])
            assert busy.recv(1000).startswith(b"HTTP/1.1 200")
        until(lambda: leaving not in service.workers())
        assert statuses == {200}
        until(lambda: bool(service.events("a worker ended")))
        assert [line["worker"] for line in service.events("a worker leaves")] == [leaving]
        assert [line["status"] for line in service.events("a worker ended")] == [0]
        assert len(service.workers()) == 2


def test_workers_end_when_the_process_that_started_them_is_killed() -> None:
    with two_workers() as service:
        until(lambda: len(service.events("ready")) == 2)
        service.process.kill()
        until(lambda: len(service.events("stopped")) == 2)


def test_an_engine_that_cannot_be_built_ends_all_workers_and_the_process_with_status_2() -> None:
    done = run(
        "-c",
        "from app import cli, served_model\n"
        "from model.errors import EngineError\n"
        "from tests.app.fakes import fake_model\n"
        "def build(_): raise EngineError('the bundle holds no float16')\n"
        "served_model.open_model = lambda _: fake_model(build=build)\n"
        "import sys; sys.argv = ['app']\n"
        "cli.main()",
        port="0",
        workers="2",
    )
    assert done.returncode == 2
    assert set(done.stderr.splitlines()) == {"error: the service failed: the bundle holds no float16"}


def test_a_child_that_is_no_worker_may_end_without_harm() -> None:
    command = [sys.executable, "-c", SERVE_SLOWLY, "0"]
    with served(
        "-c", f"import os, subprocess; subprocess.Popen(['true']); os.execv({command[0]!r}, {command!r})", workers="2"
    ) as service:
        until(lambda: len(service.events("ready")) == 2)
        assert service.ask("/predict", text="the").status_code == 200
        assert service.process.poll() is None
        assert service.events("a worker ended") == []


def test_a_port_that_other_workers_share_is_taken() -> None:
    listeners = listen("127.0.0.1", 0, 2)
    port = listeners[0].getsockname()[1]
    assert [listener.getsockname()[1] for listener in listeners] == [port, port]
    with pytest.raises(ConfigurationError, match=f"port {port}: Address already in use"):
        listen("127.0.0.1", port, 2)
    for listener in listeners:
        listener.close()
