"""What `GET /metrics` counts and times, in one process and over several workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.errors import StoreError
from app.sessions.store import SessionRecord
from tests.app.access.keys import key_file, make_key
from tests.app.fakes import LogLines
from tests.app.memory_store import MemoryStore
from tests.app.numbers import number, numbers
from tests.app.processes import Service, run, served
from tests.app.serving import serving, until
from tests.app.talking import append, create, post

OF_MODEL = frozenset({("model", "tiny")})


@pytest.fixture
def fresh() -> Iterator[TestClient]:
    """A client of a service that nobody asked anything yet."""
    with serving() as client:
        yield client


def test_requests_are_counted_by_method_route_and_status_and_timed_by_route(fresh: TestClient) -> None:
    for _ in range(3):
        post(fresh, "/predict", text="the harbour")
    post(fresh, "/predict", 422, k=0)
    fresh.get("/what is written here is nobody's business")
    session = create(fresh, "the")
    append(fresh, session, "harbour")
    counted = {
        tuple(dict(labels)[name] for name in ("method", "route", "status")): value
        for (name, labels), value in numbers(fresh).items()
        if name == "pru_requests_total" and "/health/" not in dict(labels)["route"]
    }
    assert counted == {
        ("POST", "/predict", "200"): 3,
        ("POST", "/predict", "422"): 1,
        ("GET", "none", "404"): 1,
        ("POST", "/sessions", "201"): 1,
        ("POST", "/sessions/{session_id}/append", "200"): 1,
    }
    assert number(fresh, "pru_request_seconds_count", route="/predict") == 4
    assert 0 < number(fresh, "pru_request_seconds_sum", route="/predict") < 60


def test_tokens_calls_and_batches_add_up(fresh: TestClient) -> None:
    before = numbers(fresh)
    post(fresh, "/perplexity", texts=["the harbour", "is small", "the"], include_eos=False)
    after = numbers(fresh)

    def gained(name: str) -> float:
        return after[name, OF_MODEL] - before[name, OF_MODEL]

    # The last token of a text is scored and not read.
    assert gained("pru_tokens_read_total") == 1 + 1 + 0
    assert gained("pru_batch_rows_sum") >= 3
    assert gained("pru_batch_rows_count") == gained("pru_engine_seconds_count")
    assert gained("pru_queue_seconds_count") == 4  # The context, even of no tokens, is read before the three.
    assert after["pru_requests_inside", frozenset()] == 0


def test_cache_hits_misses_and_bytes_are_told(fresh: TestClient) -> None:
    post(fresh, "/predict", text="the harbour")
    post(fresh, "/predict", text="the harbour is")
    assert number(fresh, "pru_prefix_cache_lookups_total", model="tiny", found="false") == 1
    assert number(fresh, "pru_prefix_cache_lookups_total", model="tiny", found="true") == 1
    assert number(fresh, "pru_prefix_cache_bytes", model="tiny") > 1000


def test_generated_tokens_are_counted(fresh: TestClient) -> None:
    session = create(fresh, "the")
    post(fresh, f"/sessions/{session}/continue", max_tokens=5, seed=1)
    post(fresh, "/v1/completions", prompt="the", max_tokens=3, n=2, seed=1)
    assert 5 < number(fresh, "pru_tokens_generated_total", model="tiny") <= 5 + 6


def test_operations_of_the_session_store_are_timed(fresh: TestClient) -> None:
    append(fresh, create(fresh, "the"), "harbour")
    assert number(fresh, "pru_session_store_seconds_count", operation="create") == 1
    assert number(fresh, "pru_session_store_seconds_count", operation="load") == 1
    assert number(fresh, "pru_session_store_seconds_count", operation="replace") == 1


def test_the_model_that_is_served_is_named(fresh: TestClient) -> None:
    labels = {"name": "tiny", "sha256": "0" * 64, "engine": "numpy", "precision": "float32"}
    assert number(fresh, "pru_model_info", **labels) == 1


def test_each_application_counts_for_itself(fresh: TestClient) -> None:
    with serving() as other:
        post(other, "/predict", text="the")
        labels = {"method": "POST", "route": "/predict", "status": "200"}
        assert number(other, "pru_requests_total", **labels) == 1
        assert number(fresh, "pru_requests_total", **labels) == 0


def test_no_series_holds_anything_that_a_client_sent(fresh: TestClient) -> None:
    for path in ("/sessions/quetzalcoatl", "/quetzalcoatl", "/v1/models/quetzalcoatl"):
        fresh.get(path)
    fresh.request("QUETZALCOATL", "/predict")
    post(fresh, "/predict", text="quetzalcoatl")
    assert "quetzalcoatl" not in fresh.get("/metrics").text.lower()


def test_scrapes_are_not_in_the_log_of_requests() -> None:
    logs = LogLines()
    with serving(logs=logs) as client:
        numbers(client)
    assert {(line["route"], line["level"]) for line in logs.events("request")} == {
        ("/health/ready", "debug"),
        ("/metrics", "debug"),
    }


def test_prometheus_may_choose_the_format(fresh: TestClient) -> None:
    plain = fresh.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    open_metrics = fresh.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


def test_a_folder_for_numbers_that_another_program_was_given_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    labels = {"method": "POST", "route": "/predict", "status": "200"}
    with served("-m", "app", threads="1") as service, httpx2.Client() as client:
        service.wait_until_ready()
        assert service.ask("/predict", text="the").status_code == 200
        assert number(client, "pru_requests_total", service.url, **labels) == 1
    assert run("-m", "app", "predict", "the", threads="1").returncode == 0
    assert list(tmp_path.iterdir()) == []


def kill_one(service: Service) -> None:
    """Kill a worker, and wait for the next in its place."""
    ready = len(service.events("ready"))
    os.kill(min(service.workers()), signal.SIGKILL)
    until(lambda: len(service.events("ready")) > ready)


def test_any_of_several_workers_answers_for_all_and_counts_survive_a_worker(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    labels = {"method": "POST", "route": "/predict", "status": "200"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        with served("-m", "app", workers="2", threads="1") as service:
            until(lambda: len(service.events("ready")) == 2)
            for _ in range(20):
                assert service.ask("/predict", text="the").status_code == 200
            for _ in range(5):
                with httpx2.Client() as client:
                    assert number(client, "pru_requests_total", service.url, **labels) == 20
                    assert number(client, "pru_requests_inside", service.url) == 0
            files = sorted(folder.glob("pru-metrics-*/*.db"))
            assert len(files) > 2
            for ended in (1, 2):
                kill_one(service)
                assert service.ask("/predict", text="the").status_code == 200
                with httpx2.Client() as client:
                    assert number(client, "pru_requests_total", service.url, **labels) == 20 + ended
            assert sorted(folder.glob("pru-metrics-*/*.db")) == files
            service.process.terminate()
            assert service.process.wait(60) == 0
    assert list(folder.iterdir()) == []


def test_starts_and_failures_of_the_store_are_counted() -> None:
    class Away(MemoryStore):
        async def load(self, session_id: str) -> SessionRecord | None:
            raise StoreError("the store", "is away", "bring it back")

    with serving(store=Away()) as client:
        assert number(client, "pru_starts_total") == 1
        post(client, f"/sessions/{create(client, 'the')}/append", 503, text="harbour")
        assert number(client, "pru_session_store_failures_total", operation="load") == 1
        assert number(client, "pru_session_store_failures_total", operation="create") == 0


def test_requests_over_a_quota_are_counted() -> None:
    key = make_key("alice")
    with serving(keys=key_file(key, alice={"requests_per_minute": 1})) as client:
        for status in (200, 429, 429):
            assert client.post("/predict", json={"text": "the"}, headers=key.headers).status_code == status
        assert number(client, "pru_key_quota_refusals_total") == 2
