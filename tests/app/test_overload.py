"""A serving process asked for twice what it admits: whom it lets in is served as ever, the others are told so."""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from benchmarks.asking import words
from benchmarks.load import StreamClient
from tests.app.processes import Service, served

ADMITTED = 16
"""Requests that the process takes at once."""
SAMPLE_SECONDS = 0.1
HASTE = 0.1
"""A refused client comes back after up to this share of what it was told to wait: a crowd that is less than patient."""


@dataclass
class Tally:
    """What happened to the requests of a run, and the memory of the process meanwhile."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    """Seconds of each request that was let in."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes, sampled all along."""

    def p99(self) -> float:
        """Seconds that 99 of 100 requests that were let in took at most."""
        return statistics.quantiles(self.accepted, n=100)[-1]

    def growth(self) -> float:
        """Memory in the last third of the run over that in the first."""
        third = len(self.memory) // 3
        return statistics.mean(self.memory[-third:]) / statistics.mean(self.memory[:third])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The bundled model, with a memory of texts that is full after a moment."""
    with served(
        *("-m", "app"),
        threads="1",
        queue_limit=str(ADMITTED - 1),
        prefix_cache_bytes=str(2**20),
        session_store=f"sqlite:///{tmp_path / 'sessions.db'}",
    ) as serving:
        serving.wait_until_ready()
        yield serving


async def press(service: Service, count: int, seconds: float) -> Tally:
    """Let clients ask without a pause: half of them predict, half append to a session of their own."""
    tally = Tally()
    clients = [await StreamClient.connect(service.port) for _ in range(count)]
    sessions = [json.loads(await client.post("/sessions", {}))["session_id"] for client in clients]
    end = time.perf_counter() + seconds

    async def ask(number: int, client: StreamClient) -> None:
        path = "/predict" if number % 2 else f"/sessions/{sessions[number]}/append"
        while (began := time.perf_counter()) < end:
            head, body = await client.ask(path, {"text": words(10 if number % 2 else 1)})
            status = int(head[9:12])
            tally.statuses[status] += 1
            if status == 200:
                tally.accepted.append(time.perf_counter() - began)
                continue
            assert status == 429, body
            [wait] = re.findall(rb"(?mi)^retry-after: ([0-9]+)\r$", head)
            await asyncio.sleep(random.uniform(0, HASTE * int(wait)))

    async def watch() -> None:
        while True:
            tally.memory.append(service.resident_bytes())
            await asyncio.sleep(SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(ask(number, client) for number, client in enumerate(clients)))
    watching.cancel()
    for client in clients:
        client.close()
    return tally


def overload(service: Service, seconds: float, slowdown: float) -> None:
    """Ask for all that is admitted for half of some seconds, then for twice of it, and compare."""
    full = uvloop.run(press(service, ADMITTED, seconds / 2))
    twice = uvloop.run(press(service, 2 * ADMITTED, seconds))
    figures = (
        f"p99 {twice.p99() * 1e3:.1f} ms against {full.p99() * 1e3:.1f} ms, memory x {twice.growth():.4f} of "
        f"{twice.memory[0] >> 20} MiB, {dict(twice.statuses)} against {dict(full.statuses)}"
    )
    print(figures)
    assert set(full.statuses) == {200}
    assert set(twice.statuses) == {200, 429}
    assert twice.p99() < slowdown * full.p99(), figures
    assert twice.growth() < 1.05, figures
    # With the crowd gone, whoever comes is let in.
    assert service.ask("/predict", text="the").status_code == 200


@pytest.mark.slow
def test_at_twice_the_load_whoever_is_let_in_is_served_in_time_and_the_others_are_told_when_to_come_back(
    service: Service,
) -> None:
    overload(service, 4, slowdown=4)


@pytest.mark.soak
def test_a_minute_at_twice_the_load_slows_nobody_who_is_let_in_and_takes_no_memory(service: Service) -> None:
    overload(service, 60, slowdown=2)
