"""Spans: what a request waited for, under whose trace, and nothing that anybody wrote."""

from __future__ import annotations

import json
import secrets
import threading
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.trace import SpanKind, StatusCode

from app.tracing.spans import MOST_PARTS
from tests.app.access.keys import key_file, make_key
from tests.app.fakes import LogLines, NumpyEngine, fake_model
from tests.app.memory_store import MemoryStore
from tests.app.serving import PATIENCE
from tests.app.talking import append, create, post
from tests.app.traced import Spans, id_of, trace_of, tracing

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MARK = "quetzalcoatl"


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_prediction_is_a_request_that_waits_and_is_read() -> None:
    with tracing() as (client, spans):
        post(client, "/predict", text="the harbour is small")
    request, queue, engine = spans.all
    assert (request.name, request.kind, request.parent) == ("POST /predict", SpanKind.SERVER, None)
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/predict",
        "url.scheme": "http",
    }
    for part, name in ((queue, "queue"), (engine, "engine")):
        assert part.name == name
        assert part.parent is not None
        assert part.parent.span_id == id_of(request)
        assert trace_of(part) == trace_of(request)
    assert attributes(queue) == {"pru.model": "tiny"}
    told = attributes(engine)
    assert 0 < told.pop("pru.engine.seconds") < PATIENCE
    # Four words: the engine goes 4 steps at once, and the head takes what stands after them.
    assert told == {"pru.model": "tiny", "pru.tokens": 4, "pru.engine.calls": 1, "pru.batch.rows": 1}
    times = [request.start_time, queue.start_time, queue.end_time, engine.end_time, request.end_time]
    assert times == sorted(times, key=lambda time: time or 0)
    assert queue.end_time == engine.start_time
    assert request.resource.attributes["service.name"] == "pru"
    assert engine.resource.attributes == request.resource.attributes
    assert {span.instrumentation_scope.name for span in spans.all if span.instrumentation_scope} == {"pru"}


def test_texts_that_are_scored_together_share_a_batch() -> None:
    with tracing() as (client, spans):
        post(client, "/perplexity", texts=["the harbour is", "the lights are", "the sea is"], include_eos=False)
    request = spans.one("POST /perplexity")
    assert spans.under(request) == ["queue", "engine"] + ["queue"] * 3 + ["engine"] * 3
    context, *texts = [attributes(span) for span in spans.named("engine")]
    assert context["pru.tokens"] == 0
    assert [told["pru.tokens"] for told in texts] == [2, 2, 2]
    assert {told["pru.batch.rows"] for told in texts} == {3}


def test_an_append_shows_what_the_store_did() -> None:
    with tracing() as (client, spans):
        session = create(client, "the")
        append(client, session, "harbour")
    # What can be gone back to is a state before the end, so a beginning is read in two.
    assert spans.under(spans.one("POST /sessions")) == ["queue", "engine"] * 2 + ["store create"]
    request = spans.one("POST /sessions/{session_id}/append")
    assert spans.under(request) == ["store load", "queue", "engine", "store replace"]
    assert session not in str([span.to_json() for span in spans.all])


def test_a_frame_of_a_websocket_is_a_part_of_its_connection_and_has_parts_of_its_own() -> None:
    with tracing() as (client, spans):
        session = create(client, "the")
        with client.websocket_connect(f"/sessions/{session}/stream") as socket:
            for number, position in enumerate((2, 9)):
                socket.send_json({"id": number, "type": "append", "text": "harbour", "expected_position": position - 1})
                assert socket.receive_json()["type"] == ("append" if number == 0 else "error")
    connection = spans.one("GET /sessions/{session_id}/stream")
    assert connection.kind == SpanKind.SERVER
    assert attributes(connection)["http.response.status_code"] == 101
    assert spans.under(connection) == ["frame append", "frame append"]
    done, refused = spans.named("frame append")
    assert spans.under(done) == ["store load", "queue", "engine", "store replace"]
    assert spans.under(refused) == ["store load"]
    assert attributes(refused) == {"http.response.status_code": 409}
    assert {trace_of(span) for span in (connection, done, refused)} == {trace_of(connection)}


def test_a_stream_lasts_until_its_last_word() -> None:
    with tracing() as (client, spans):
        session = create(client, "the")
        post_stream = client.post(f"/sessions/{session}/continue", json={"max_tokens": 3, "seed": 1, "stream": True})
        assert post_stream.text.count("event: token") == 3
    request = spans.one("POST /sessions/{session_id}/continue")
    # A first reading without words, and one for each word that was drawn.
    assert spans.under(request) == ["store load"] + ["queue", "engine"] * 4 + ["store replace"]
    assert [attributes(span)["pru.tokens"] for span in spans.named("engine")[-4:]] == [0, 1, 1, 1]
    assert request.end_time is not None
    assert all((span.end_time or 0) <= request.end_time for span in spans.named("engine"))


def test_parts_beyond_the_most_that_a_request_may_have_are_counted() -> None:
    with tracing() as (client, spans):
        post(client, "/v1/completions", prompt="the", max_tokens=100, temperature=1, seed=1, n=2)
    request = spans.one("POST /v1/completions")
    readings = 1 + 2 * 100
    assert len(spans.under(request)) == MOST_PARTS
    left_out = attributes(request)["pru.spans.left_out"]
    assert 0 < left_out <= 2 * readings - MOST_PARTS


def test_an_error_is_a_status_and_never_a_message() -> None:
    ready = threading.Event()

    def fail() -> None:
        if ready.is_set():
            raise RuntimeError(MARK)

    with tracing(model=fake_model(build=lambda size: NumpyEngine(size, before=fail))) as (client, spans):
        ready.set()
        post(client, "/predict", 500, text=MARK)
    request, engine = spans.one("POST /predict"), spans.one("engine")
    assert (request.status.status_code, engine.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert attributes(request)["error.type"] == "500"
    assert {span.status.description for span in spans.all} == {None}
    assert [event for span in spans.all for event in span.events] == []


def test_what_a_client_did_wrong_is_no_error_of_the_service() -> None:
    with tracing() as (client, spans):
        post(client, "/predict", 422, k=0)
        client.get(f"/{MARK}")
        client.request(MARK.upper(), "/predict")
    assert [span.name for span in spans.all] == ["POST /predict", "GET", "_OTHER /predict"]
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}
    assert [attributes(span)["http.response.status_code"] for span in spans.all] == [422, 404, 405]


def test_probes_and_scrapes_are_not_traced() -> None:
    with tracing() as (client, spans):
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200
    assert spans.all == []


def test_a_clients_trace_goes_on() -> None:
    with tracing() as (client, spans):
        client.get("/model", headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": f"vendor={MARK}"})
    [span] = spans.all
    assert f"{trace_of(span):032x}" == TRACE_ID
    assert span.parent is not None
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (SPAN_ID, True)
    assert MARK not in span.to_json()


def test_a_trace_that_its_client_does_not_record_is_not_recorded_here() -> None:
    logs = LogLines()
    with tracing(logs=logs) as (client, spans):
        client.post("/predict", json={"text": "the"}, headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"})
    assert spans.all == []
    assert [line.get("trace_id") for line in logs.events("request") if line["route"] == "/predict"] == [TRACE_ID]


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        MARK,
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01" + "a" * 2**20,
        "é" * 55,
    ],
    ids=["empty", "word", "short", "more", "version", "no trace", "no span", "upper case", "a megabyte", "not ASCII"],
)
def test_a_malformed_traceparent_begins_a_trace_of_the_services_own(traceparent: str) -> None:
    with tracing() as (client, spans):
        headers = [(b"traceparent", traceparent.encode("utf-8"))]
        assert client.get("/model", headers=headers).status_code == 200
    [span] = spans.all
    assert span.parent is None
    assert f"{trace_of(span):032x}" != TRACE_ID


def test_two_traceparents_are_none() -> None:
    with tracing() as (client, spans):
        client.get("/model", headers=[("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")] * 2)
    [span] = spans.all
    assert span.parent is None


def test_log_lines_carry_the_ids_of_their_span() -> None:
    logs = LogLines()
    with tracing(logs=logs) as (client, spans):
        post(client, "/predict", text="the")
        client.get("/health/live")
    [request] = [line for line in logs.events("request") if line["route"] == "/predict"]
    span = spans.one("POST /predict")
    assert (request["trace_id"], request["span_id"]) == (f"{trace_of(span):032x}", f"{id_of(span):016x}")
    assert all("trace_id" not in line for line in logs.events("request") if line["route"] != "/predict")
    assert "trace_id" not in logs.events("ready")[0]


def test_a_failing_frame_logs_the_ids_of_its_span() -> None:
    class Broken(MemoryStore):
        async def load(self, session_id: str) -> None:
            raise RuntimeError(session_id)

    logs = LogLines()
    with tracing(logs=logs, store=Broken()) as (client, spans):
        session = create(client, "the")
        with client.websocket_connect(f"/sessions/{session}/stream") as socket:
            socket.send_json({"id": 1, "type": "append", "text": "harbour"})
            assert socket.receive_json()["status"] == 500
    [failed] = logs.events("failed")
    frame = spans.one("frame append")
    assert (failed["trace_id"], failed["span_id"]) == (f"{trace_of(frame):032x}", f"{id_of(frame):016x}")


def test_without_a_trace_log_lines_have_no_ids_of_any() -> None:
    logs = LogLines()
    with tracing(logs=logs):
        pass
    assert all("trace_id" not in json.loads(line) for line in logs.getvalue().splitlines())


def everything(spans: Spans) -> bytes:
    """What goes over the wire."""
    sent: bytes = encode_spans(spans.all).SerializeToString()
    return sent


def test_no_span_holds_text_a_key_or_a_header() -> None:
    key = make_key("alice")
    mark = MARK + secrets.token_hex(4)
    with tracing(keys=key_file(key)) as (client, spans):
        headers = {
            **key.headers,
            "User-Agent": mark,
            "Cookie": mark,
            "X-Request-Id": mark,
            "Idempotency-Key": mark,
            "tracestate": f"a={mark}",
            "baggage": f"a={mark}",
            "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01",
            "Accept": f"text/{mark}",
            "Referer": f"http://{mark}/",
        }
        client.headers.update(headers)
        session: str = client.post(f"/sessions?{mark}={mark}", json={"text": mark}).json()["session_id"]
        posts: list[tuple[str, dict[str, Any]]] = [
            ("/predict", {"text": mark}),
            ("/predict", {"text": "", "prefix": mark}),
            ("/predict", {"text": "", mark: mark}),
            ("/perplexity", {"texts": [mark], "context": mark, "return_words": True}),
            (f"/sessions/{session}/append", {"text": mark}),
            (f"/sessions/{session}/continue", {"max_tokens": 2, "stop": [mark]}),
            (f"/sessions/{mark}/append", {"text": mark}),
            ("/v1/completions", {"prompt": mark, "model": mark, "stop": mark, "user": mark}),
            ("/tokenize", {"prompt": mark}),
        ]
        statuses = {client.post(f"{path}?q={mark}", json=fields).status_code for path, fields in posts}
        statuses |= {client.get(f"/{mark}").status_code, client.get(f"/v1/models/{mark}").status_code}
        statuses.add(client.request(mark.upper(), "/predict").status_code)
        with client.websocket_connect(f"/sessions/{session}/stream?{mark}") as socket:
            for frame in ({"type": "append", "text": mark}, {"type": mark}, {"type": "append", "prefix": f"{mark} "}):
                socket.send_json({"id": mark, **frame})
                socket.receive_json()
        assert statuses >= {200, 404, 405, 422}
    sent = everything(spans).lower()
    assert len(spans.named("engine")) > 5
    assert len(spans.named("frame append")) == 1
    for secret in (mark, MARK, key.text, session, key.line.split()[0]):
        assert secret.lower().encode() not in sent
    assert {attributes(span).get("pru.key") for span in spans.all if span.kind == SpanKind.SERVER} == {"alice"}
