"""How many words a second a running server predicts, and how long each answer takes.

Boundary: an address in, figures out. It asks for a bounded time from a bounded number of threads, each with one
connection that it keeps.
"""

from __future__ import annotations

import http.client
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import quantiles
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from model.errors import ConfigurationError, PRUError
from pru.api_key import VARIABLE, bearer

TIMEOUT = 10.0
"""Seconds that an answer may take."""
WORDS = (
    "the film was released in a small town near river and first new season of game after two years".split()  # noqa: SIM905
)
LENGTH = 12
"""Words of a text. They come in random order, so that no text was read before."""


class ServerError(PRUError):
    """A server that cannot be measured."""


@dataclass(frozen=True)
class Answers:
    """What came of the requests of all clients."""

    model: dict[str, Any]
    clients: int
    seconds: float
    requests: int
    refused: int
    """Requests that were answered with another status than 200; their times are left out."""
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def ask(url: str, clients: int, seconds: float) -> Answers:
    """Ask `POST /predict` for so long, with the environment's key if there is one.

    `ServerError` where there is no such server or an answer is none.
    """
    if not _is_address(url):
        raise ConfigurationError(f"{url} is no address of a server; give one such as http://127.0.0.1:8000")
    key = bearer()
    try:
        with closing(_Client(url, key)) as client:
            model = client.predict(random.Random(0))
        if model in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise ServerError(f"{url} answers with status {model}; give a key for /predict with {VARIABLE}")
        if not isinstance(model, dict):
            raise ServerError(f"{url} answers with status {model}; give the address of a PRU server that is ready")
        start = perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            found = list(threads.map(lambda seed: _ask_until(url, key, seed, start + seconds), range(1, clients + 1)))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ServerError(
            f"{url} does not answer: {reason}; start it with `pru serve`, or give another --url"
        ) from None
    took = perf_counter() - start
    times = [time for times, _ in found for time in times]
    if not times:
        raise ServerError(f"{url} refused every request; ask it with fewer --clients")
    refused = sum(count for _, count in found)
    # One time alone has no quantiles.
    cuts = quantiles(times * 2 if len(times) == 1 else times, n=100, method="inclusive")
    p50, p95, p99 = (1e3 * cuts[percent - 1] for percent in (50, 95, 99))
    return Answers(model, clients, took, len(times), refused, len(times) / took, p50, p95, p99)


def show(found: Answers, *, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    from rich.table import Table  # noqa: PLC0415 - JSON needs no tables

    from app.terminal import print_table, shown  # noqa: PLC0415

    model = " ".join(shown(str(found.model.get(name, ""))) for name in ("name", "engine", "precision"))
    table = Table(caption=f"{model}; POST /predict for {found.seconds:.1f} s")
    for heading in ("clients", "requests", "refused", "requests/s", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    figures = (found.requests_per_second, found.p50_ms, found.p95_ms, found.p99_ms)
    counts = (found.clients, found.requests, found.refused)
    table.add_row(*(f"{count:,}" for count in counts), *(f"{figure:,.1f}" for figure in figures))
    print_table(table)


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # No port, or half an address of IPv6.
        return False


class _Client:
    """One connection."""

    def __init__(self, url: str, key: str | None) -> None:
        address = urlsplit(url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(str(address.hostname), address.port, timeout=TIMEOUT)
        self._path = f"{address.path.rstrip('/')}/predict"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": key} if key else {})

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def predict(self, chance: random.Random) -> dict[str, Any] | int:
        """Ask for the words after a text: what the server says of its model, or another status than 200."""
        body = json.dumps({"text": " ".join(chance.choices(WORDS, k=LENGTH)), "k": 5})
        self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != http.HTTPStatus.OK:
            return response.status
        answer = json.loads(content)
        if not isinstance(answer, dict) or not isinstance(answer.get("model"), dict):
            raise ValueError("its answer is not that of POST /predict")
        model: dict[str, Any] = answer["model"]
        return model


def _ask_until(url: str, key: str | None, seed: int, deadline: float) -> tuple[list[float], int]:
    """Seconds of each answer, and how many requests were refused."""
    chance = random.Random(seed)
    times: list[float] = []
    refused = 0
    with closing(_Client(url, key)) as client:
        while perf_counter() < deadline:
            start = perf_counter()
            if isinstance(client.predict(chance), dict):
                times.append(perf_counter() - start)
            else:
                refused += 1
    return times, refused
