"""Logs: JSON lines with the request's id, and none of the user's text whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from app.logs import capture_library_logs, make_logger
from app.settings import LogLevel
from tests.app.fakes import LogLines, NumpyEngine, fake_model
from tests.app.serving import serving

SECRET = "Quetzalcoatl"


@pytest.fixture
def library_logs() -> Iterator[LogLines]:
    """What the service writes of the libraries' records."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    handlers, level = root.handlers, root.level
    lines = LogLines()
    capture_library_logs(make_logger(LogLevel.INFO, lines))
    try:
        yield lines
    finally:
        root.handlers, root.level = handlers, level
        logging.captureWarnings(False)
        assert uvicorn.handlers == []


def test_a_request_is_one_line_with_its_id_route_status_and_time() -> None:
    logs = LogLines()
    with serving(logs=logs) as client:
        client.post("/predict", json={"text": "the"}, headers={"X-Request-Id": "mine"})
    [line] = [line for line in logs.events("request") if line["request_id"] == "mine"]
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/predict", 200, "info")
    assert 0 < line["milliseconds"] < 60_000
    assert line["timestamp"].endswith("Z")


def test_probes_are_logged_for_debugging_only() -> None:
    logs = LogLines()
    with serving(logs=logs) as client:
        client.get("/health/live")
    assert {line["level"] for line in logs.events("request") if line["route"] == "/health/live"} == {"debug"}


def test_the_start_and_the_stop_are_logged() -> None:
    logs = LogLines()
    with serving(logs=logs):
        pass
    [ready] = logs.events("ready")
    assert (ready["name"], ready["engine"], ready["precision"]) == ("tiny", "numpy", "float32")
    assert len(logs.events("stopped")) == 1


def test_no_log_line_holds_the_users_text() -> None:
    logs = LogLines()

    def fail_on(size: int) -> NumpyEngine:
        engine = NumpyEngine(size)

        def fail() -> None:
            if len(engine.calls) > 10:
                raise RuntimeError(f"cannot read {SECRET}")

        engine.before = fail
        return engine

    with serving(fake_model(build=fail_on), logs, max_body_bytes=2000, max_tokens=20) as client:
        json_type = {"Content-Type": "application/json"}
        statuses = [
            client.post("/predict", json={"text": SECRET}).status_code,
            client.post("/predict", json={"text": "", "prefix": SECRET}).status_code,
            client.post("/predict", json={"text": "", "prefix": f"{SECRET} "}).status_code,
            client.post("/predict", json={"text": "", SECRET: 1}).status_code,
            client.post("/predict", json={"text": {SECRET: 1}}).status_code,
            client.post("/perplexity", json={"texts": [SECRET], "context": SECRET}).status_code,
            client.post("/perplexity", json={"texts": [f"{SECRET} " * 30]}).status_code,
            client.post("/predict", content=f'{{"{SECRET}', headers=json_type).status_code,
            client.post("/predict", content=SECRET, headers={"Content-Type": f"text/{SECRET}"}).status_code,
            client.post("/predict", json={"text": SECRET * 500}).status_code,
            client.post(f"/{SECRET}", json={}).status_code,
            client.get(f"/model?text={SECRET}").status_code,
            client.request(SECRET.upper(), "/predict").status_code,
            client.get(
                "/health/live", headers={"X-Request-Id": f"{SECRET} {SECRET}", "User-Agent": SECRET}
            ).status_code,
            *(client.post("/predict", json={"text": SECRET}).status_code for _ in range(12)),
        ]
        assert set(statuses) == {200, 400, 404, 405, 413, 415, 422, 500}
    assert len(logs.events("request")) >= len(statuses)
    assert logs.events("failed")
    assert SECRET.lower() not in logs.getvalue().lower()


def test_library_records_lose_their_arguments_and_messages(library_logs: LogLines) -> None:
    logging.getLogger("uvicorn.error").error("Exception in %s\nTraceback", SECRET, exc_info=ValueError(SECRET))
    logging.getLogger("elsewhere").warning(f"cannot read {SECRET}")
    logging.getLogger("py.warnings").warning("%s", SECRET)
    lines = library_logs.events("library")
    assert [line["logger"] for line in lines] == ["uvicorn.error", "elsewhere", "py.warnings"]
    assert lines[0]["message"] == "Exception in %s"
    assert lines[0]["error"] == "ValueError"
    assert all("test_logs" in line["source"] for line in lines)
    assert SECRET not in library_logs.getvalue()


def test_a_task_that_dies_unheard_is_logged_without_its_message(library_logs: LogLines) -> None:
    async def die() -> None:
        raise ValueError(SECRET)

    async def forget() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": SECRET, "exception": ValueError(SECRET)})
        await asyncio.gather(die(), return_exceptions=True)

    asyncio.run(forget())
    [line] = library_logs.events("library")
    assert (line["logger"], line["error"]) == ("asyncio", "ValueError")
    assert SECRET not in library_logs.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    lines = LogLines()
    logger = make_logger(LogLevel.WARNING, lines)
    logger.info("small")
    logger.error("large", error=ValueError(SECRET))
    [line] = map(json.loads, lines.getvalue().splitlines())
    assert line["event"] == "large"
    assert line["error"] == "ValueError"
    assert SECRET not in lines.getvalue()


def test_a_line_that_cannot_be_written_is_lost_and_the_next_one_says_so() -> None:
    lines = LogLines()
    logger = make_logger(LogLevel.INFO, lines)
    lines.is_full = True
    logger.info("first")
    logger.error("second", error=ValueError(SECRET))
    lines.is_full = False
    logger.info("third")
    logger.info("fourth")
    third, fourth = map(json.loads, lines.getvalue().splitlines())
    assert (third["event"], third["lines_lost"]) == ("third", 2)
    assert (fourth["event"], "lines_lost" in fourth) == ("fourth", False)
    lines.close()
    logger.info("fifth")


def test_requests_are_answered_while_the_log_cannot_be_written() -> None:
    logs = LogLines()
    with serving(logs=logs) as client:
        logs.is_full = True
        assert [client.post("/predict", json={"text": "the"}).status_code for _ in range(3)] == [200] * 3
        logs.is_full = False
        client.get("/model")
        [line] = [line for line in logs.events("request") if line["route"] == "/model"]
        assert line["lines_lost"] == 3
