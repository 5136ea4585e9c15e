"""Addresses that are none, servers that are not there or not ours, and answers that are cut."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from model.errors import ConfigurationError
from pru import AnswerError, APIError, AsyncPRUClient, ConnectionFailedError, PRUClient, PRUError, TimedOutError
from tests.pru.client.network import accepting, answering
from tests.pru.client.script import PREDICTED, Script, told
from tests.source import ROOT

# These servers hang up after an answer and say so: a client that kept the connection would lose its next request.
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
HTML = b"<html><body>Welcome</body></html>"


def page(status: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(HTML)) + HTML


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8000",
        "127.0.0.1:8000",
        "/path",
        "http://",
        "http://h:port",
        "http://h?q=1",
        "http://h#f",
        " ",
    ],
)
@pytest.mark.parametrize("kind", [PRUClient, AsyncPRUClient])
def test_an_address_that_is_none_is_refused_with_how_to_write_it(kind: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"written as http://127\.0\.0\.1:8000"):
        kind(url)


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": -1}, {"max_retries": -1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="timeout must be above 0 seconds, and max_retries 0 or more"):
        PRUClient(**settings)


def test_a_password_in_the_address_or_a_header_is_in_no_error(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with PRUClient(f"http://user:secret@127.0.0.1:{port}") as client, pytest.raises(ConnectionFailedError) as found:
        client.predict("the")
    assert f"127.0.0.1:{port}" in str(found.value)
    with pytest.raises(ConfigurationError) as wrong:
        PRUClient("ftp://user:secret@host")
    with (
        answering(page(b"200 OK")) as url,
        PRUClient(url, headers={"X-Key": "secret\n"}) as client,
        pytest.raises(ConfigurationError, match="mend the client's address or headers") as unsent,
    ):
        client.predict("the")
    assert not any("secret" in str(it.value) for it in (found, wrong, unsent))


@pytest.mark.anyio
async def test_where_nobody_listens_the_address_and_what_to_do_are_told(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told_of = rf"no answer came from 127\.0\.0\.1:{port}: .*; check that the service runs there"
    with PRUClient(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectionFailedError, match=told_of):
        client.predict("the")
    async with AsyncPRUClient(f"http://127.0.0.1:{port}") as asynchronous:
        with pytest.raises(ConnectionFailedError, match=told_of):
            await asynchronous.predict("the")
    assert len(waits) == 4


@pytest.mark.anyio
async def test_a_server_that_says_nothing_times_out(waits: list[float]) -> None:
    def silent(client: socket.socket) -> None:
        with client:
            while client.recv(2**16):
                pass

    with accepting(silent) as url:
        with PRUClient(url, timeout=0.2, max_retries=1) as client, pytest.raises(TimedOutError):
            client.model()
        async with AsyncPRUClient(url, timeout=0.2, max_retries=1) as asynchronous:
            with pytest.raises(TimedOutError):
                await asynchronous.model()
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (page(b"200 OK"), AnswerError, "with text/html, not application/json; check that the address"),
        (page(b"404 Not Found"), APIError, "404 Not Found: .* with text/html and no problem document"),
        (page(b"302 Found"), APIError, "302 Found"),
        (page(b"502 Bad Gateway"), APIError, "502 Bad Gateway"),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", AnswerError, "fields that this client does not know"),
        (HEAD + b"Content-Length: 7\r\n\r\nnot yet", AnswerError, "fields that this client does not know"),
        (HEAD + b"Content-Length: 2\r\n\r\n\xff\xfe", AnswerError, "fields that this client does not know"),
        (HEAD + b"Content-Length: 100\r\n\r\n{", ConnectionFailedError, "no answer came"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", ConnectionFailedError, "no answer came"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", AnswerError, "cannot be read"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ConnectionFailedError, "no answer came"),
        (b"", ConnectionFailedError, "no answer came"),
    ],
)
@pytest.mark.anyio
async def test_what_is_no_answer_of_the_service_is_an_error_that_says_so(
    answer: bytes, kind: type[PRUError], words: str, waits: list[float]
) -> None:
    with answering(answer) as url:
        with PRUClient(url) as client, pytest.raises(kind, match=words):
            client.predict("the")
        async with AsyncPRUClient(url) as asynchronous:
            with pytest.raises(kind, match=words):
                await asynchronous.predict("the")
            with pytest.raises(PRUError):
                await (await asynchronous.attach("x")).stream().result()
    if kind is ConnectionFailedError:
        assert len(waits) == 6


def test_a_problem_of_somebody_elses_is_not_taken_for_the_services() -> None:
    line = told({"type": "about:blank", "title": "Nope", "status": 429, "detail": "x", "request_id": "y"}, 404)
    with Script(line).client() as client, pytest.raises(APIError, match="no problem document") as found:
        client.predict("the")
    assert found.value.problem is None
    assert found.value.status == 404


@pytest.mark.anyio
async def test_a_client_that_is_closed_says_so() -> None:
    script = Script(told(PREDICTED))
    client = script.client()
    client.predict("the")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.predict("the")
    asynchronous = script.async_client()
    await asynchronous.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asynchronous.predict("the")


def test_without_its_extra_the_client_says_what_to_install() -> None:
    program = "import sys; sys.modules['httpx2'] = None\nfrom pru import PRUClient"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ImportError: the client needs httpx2: pip install 'pru[client]'"


def test_other_names_are_not_there() -> None:
    import pru

    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        _ = pru.Client
    assert {getattr(pru, name).__name__ for name in pru.__all__} == set(pru.__all__)
