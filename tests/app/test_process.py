"""The serving process: its start, its signals, its output, and what it does not import."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from app.server import listen
from model.errors import ConfigurationError
from tests.app.processes import ROOT, SERVE_SMALL, environment, run, served_slowly
from tests.app.serving import PATIENCE, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_request_lets_it_finish(number: signal.Signals) -> None:
    with served_slowly(0.7) as service, ThreadPoolExecutor() as pool:
        service.wait_until_ready()
        warming = len(service.said)
        fields = {"text": "the harbour"}
        running = pool.submit(httpx2.post, f"{service.url}/perplexity", json=fields, timeout=PATIENCE)
        until(lambda: len(service.said) > warming)
        service.process.send_signal(number)
        response = running.result()
        assert response.status_code == 200
        assert response.json()["results"][0]["token_count"] == 3
        assert service.process.wait(PATIENCE) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{service.url}/health/live")
        until(lambda: bool(service.events("stopped")))
        assert [line["event"] for line in service.lines][-3:] == ["draining", "request", "stopped"]
        assert set(service.said) == {"engine\n"}


def test_a_signal_before_the_engine_is_warm_ends_the_process() -> None:
    with served_slowly(0.5) as service:
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0


def test_the_port_answers_as_soon_as_it_is_logged_and_503_until_the_engine_is_warm() -> None:
    with served_slowly(0.5) as service:
        assert httpx2.get(f"{service.url}/health/live").status_code == 200
        assert httpx2.get(f"{service.url}/health/ready").status_code == 503
        service.wait_until_ready()
        assert httpx2.get(f"{service.url}/health/ready").status_code == 200


def test_a_client_that_closes_its_socket_frees_the_engine() -> None:
    body = json.dumps({"text": "the"}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with served_slowly(0.4) as service:
        service.wait_until_ready()
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(head.encode() + body)
                time.sleep(0.01)
        began = time.monotonic()
        assert httpx2.post(f"{service.url}/predict", json={"text": "the"}, timeout=PATIENCE).status_code == 200
        assert time.monotonic() - began < 6  # Computing all of them takes 12 seconds.
        until(lambda: [line["status"] for line in service.events("request")].count(499) == 30)


def test_every_line_on_standard_output_is_json_even_for_what_is_not_http() -> None:
    with served_slowly(0) as service:
        service.wait_until_ready()
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(b"Quetzalcoatl\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        until(lambda: bool(service.events("library")))
        [line] = service.events("library")
        assert line["logger"] == "uvicorn.error"
        assert "Quetzalcoatl" not in json.dumps(service.lines)


def test_a_process_whose_log_nobody_reads_any_more_answers_and_ends_as_it_should() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", SERVE_SMALL]
    with subprocess.Popen(
        command, env=environment(port=str(port)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while json.loads(process.stdout.readline())["event"] != "ready":
                pass
            process.stdout.close()
            answers = [httpx2.post(f"http://127.0.0.1:{port}/predict", json={"text": "the"}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200] * 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_task_that_dies_ends_the_process_with_one_line_and_status_2() -> None:
    done = run(
        "-c",
        "import sys\n"
        "from app import cli, main, served_model\n"
        "from tests.app.fakes import fake_model\n"
        "async def die(*_): raise ValueError('Quetzalcoatl')\n"
        "main._keep_store = die\n"
        "served_model.open_model = lambda _: fake_model()\n"
        "sys.argv = ['app']\n"
        "cli.main()",
        port="0",
    )
    assert (done.returncode, done.stderr) == (2, "error: the service failed: ValueError\n")
    assert "a task of the service died" in done.stdout
    assert "Quetzalcoatl" not in done.stdout


def test_an_engine_that_cannot_be_built_ends_the_process_with_one_line_and_status_2() -> None:
    done = run(
        "-c",
        "import sys\n"
        "from app import cli, served_model\n"
        "from model.errors import EngineError\n"
        "from tests.app.fakes import fake_model\n"
        "def build(_): raise EngineError('the bundle holds no float16')\n"
        "served_model.open_model = lambda _: fake_model(build=build)\n"
        "sys.argv = ['app']\n"
        "cli.main()",
        port="0",
    )
    assert done.returncode == 2
    assert done.stderr == "error: the service failed: the bundle holds no float16\n"


def test_a_missing_bundle_is_one_line_and_status_2_and_starts_nothing(tmp_path: Path) -> None:
    done = run("-m", "app", bundle=str(tmp_path / "none"), port="0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'none'} is not a folder")
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_an_error_that_names_the_settings() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}: Address already in use; .* PRU_PORT"):
            listen("127.0.0.1", port)


def test_an_address_that_is_not_one_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on no such host port 80"):
        listen("no such host", 80)


def test_the_terminal_imports_no_web_framework() -> None:
    done = run(
        "-c",
        "import json, sys\n"
        "from app import cli, served_model\n"
        "from tests.app.fakes import fake_model\n"
        "served_model.open_model = lambda _: fake_model()\n"
        "sys.argv = ['app', 'predict', 'the', '--json']\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))",
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "app.model_service" in loaded
    assert not loaded & {"torch", "fastapi", "starlette", "uvicorn", "training", "export"}
