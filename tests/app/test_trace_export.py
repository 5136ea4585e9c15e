"""Where spans go: a collector over a socket, one that misbehaves, and nowhere at all."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable

import httpx2
import pytest

from app.tracing import tracing_of_environment
from app.tracing.spans import FLUSH_SECONDS
from model.errors import ConfigurationError
from tests.app.processes import SERVE_SMALL, environment, run, served
from tests.app.serving import PATIENCE, until
from tests.app.traced import Collector, collecting, misbehaving
from tests.source import ROOT

QUICK = 1.0
"""Seconds in which a request of a small model is answered for certain, however busy the machine."""


@pytest.fixture
def trace_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let processes send their spans to an address, at once and one after the other."""

    def choose(url: str) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.setenv("no_proxy", "*")

    return choose


def test_a_collector_gets_requests_that_it_can_read(
    trace_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as (collector, url):
        trace_to(url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "words")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours")
        with served("-c", SERVE_SMALL) as service:
            service.wait_until_ready()
            assert service.ask("/predict", text="the harbour").status_code == 200
            until(lambda: len(collector.spans) == 3)
    spans = {span.name: span for span in collector.spans}
    assert spans.keys() == {"POST /predict", "queue", "engine"}
    request = spans["POST /predict"]
    assert {spans[name].parent_span_id for name in ("queue", "engine")} == {request.span_id}
    assert {span.trace_id for span in spans.values()} == {request.trace_id}
    assert time.time() - 600 < request.start_time_unix_nano / 1e9 < request.end_time_unix_nano / 1e9 < time.time() + 1
    assert {path for path, _ in collector.heads} == {"/v1/traces"}
    assert {head["content-type"] for _, head in collector.heads} == {"application/x-protobuf"}
    assert {head["x-tenant"] for _, head in collector.heads} == {"ours"}
    assert {told["service.name"] for told in collector.resources()} == {"words"}
    logged = next(line for line in service.events("request") if line["route"] == "/predict")
    assert (logged["trace_id"], logged["span_id"]) == (request.trace_id.hex(), request.span_id.hex())


def test_what_is_not_sent_at_a_stop_is_sent_then(
    trace_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as (collector, url):
        trace_to(url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        with served("-c", SERVE_SMALL) as service:
            service.wait_until_ready()
            assert service.ask("/predict", text="the harbour").status_code == 200
            assert collector.bodies == []
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
    assert sorted(span.name for span in collector.spans) == ["POST /predict", "engine", "queue"]


def test_the_sampler_is_the_environments(trace_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as (collector, url):
        trace_to(url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        with served("-c", SERVE_SMALL) as service:
            service.wait_until_ready()
            assert service.ask("/predict", text="the harbour").status_code == 200
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
    assert collector.bodies == []


def test_every_worker_sends_its_own(trace_to: Callable[[str], None]) -> None:
    with collecting() as (collector, url):
        trace_to(url)
        with served("-c", SERVE_SMALL, workers="2") as service:
            until(lambda: len(service.events("ready")) == 2)
            asked = 0

            def both_have_sent() -> bool:
                nonlocal asked
                asked += 1
                assert service.ask("/predict", text="the").status_code == 200
                return len(senders(collector)) == 2

            until(both_have_sent)
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
    requests = [span for span in collector.spans if span.name == "POST /predict"]
    assert len(requests) == asked
    assert len({span.trace_id for span in requests}) == asked, "workers make the same ids"


def senders(collector: Collector) -> set[str]:
    """Ids of the processes that sent something."""
    return {told["service.instance.id"] for told in collector.resources()}


def hang(_: socket.socket) -> None:
    pass


def close(connection: socket.socket) -> None:
    connection.close()


def answer_garbage(connection: socket.socket) -> None:
    connection.sendall(b"\x00\xff garbage " * 100)
    connection.close()


def answer_without_end(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    for _ in range(1 << 12):
        connection.sendall(b"x" * (1 << 16))


@pytest.mark.parametrize("behave", [hang, close, answer_garbage, answer_without_end])
def test_a_collector_that_misbehaves_neither_slows_nor_fails_a_request_nor_the_stop(
    behave: Callable[[socket.socket], None], trace_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    with misbehaving(behave) as (taken, url):
        trace_to(url)
        with served("-c", SERVE_SMALL) as service:
            service.wait_until_ready()
            seconds = []
            with httpx2.Client(base_url=service.url) as client:
                for number in range(150):
                    began = time.perf_counter()
                    assert client.post("/predict", json={"text": "the harbour " * (number % 9)}).status_code == 200
                    seconds.append(time.perf_counter() - began)
                until(lambda: bool(taken))
            resident = service.resident_bytes()
            began = time.perf_counter()
            service.process.terminate()
            assert service.process.wait(PATIENCE) == 0
            stopped = time.perf_counter() - began
    assert max(seconds) < QUICK
    assert stopped < FLUSH_SECONDS + 3 * QUICK
    assert resident < 400 << 20


def test_a_collector_that_is_not_there_neither_slows_nor_fails_anything(trace_to: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        trace_to(f"http://127.0.0.1:{taken.getsockname()[1]}")
    with served("-c", SERVE_SMALL) as service:
        service.wait_until_ready()
        for _ in range(20):
            assert service.ask("/predict", text="the").status_code == 200
        until(lambda: bool([line for line in service.events("library") if line["logger"].startswith("opentelemetry")]))
        began = time.perf_counter()
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
        assert time.perf_counter() - began < FLUSH_SECONDS + 3 * QUICK
    told = [line for line in service.events("library") if line["logger"].startswith("opentelemetry")]
    assert any("exporting %s batch" in line["message"] for line in told)


LOADED = """
import sys
import app.server
from app.main import create_app
create_app()
print([name for name in sys.argv[1:] if name in sys.modules], "app.tracing.spans" in sys.modules)
"""
SENDING = ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "requests"]
"""Modules that only what sends traces needs. The API without them is FastAPI's own."""


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "words"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
    ],
)
def test_what_sends_traces_is_loaded_only_where_there_is_somewhere_to_send_them(
    variables: dict[str, str], loaded: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *SENDING],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout.strip() == (f"{SENDING} True" if loaded else "[] False"), done.stderr


MISSING = """
import sys

missing = sys.argv[1]

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from app.cli import main
sys.argv = ["app", "serve"]
main()
"""


@pytest.mark.parametrize("module", ["opentelemetry.sdk", "opentelemetry.exporter", "requests"])
def test_without_the_extra_an_endpoint_ends_the_program_with_one_line_that_says_what_to_install(
    module: str, trace_to: Callable[[str], None]
) -> None:
    trace_to("http://127.0.0.1:1")
    done = run("-c", MISSING, module, workers="2", port="0")
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set" in line
    assert "pip install '.[traces]'" in line


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigurationError, match="unset OTEL_EXPORTER_OTLP_PROTOCOL"):
        tracing_of_environment()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    assert tracing_of_environment() is not None
