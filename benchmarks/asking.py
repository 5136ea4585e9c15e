"""What clients ask of a server under load, for some seconds.

Boundary: requests. What is compared, and with what, is the business of the files that start servers.
"""

from __future__ import annotations

import json
import random

from benchmarks.load import Load, StreamClient, measure

SECONDS = 2.0
CLIENTS = 32
WORDS = ("the", "of", "and", "in", "to", "a", "was", "on", "that", "as", "for", "it", "with", "by", "from", "at", "is")
"""Frequent words, known to the bundled model."""


def words(count: int) -> str:
    """A text of so many words that hardly was sent before."""
    return " ".join(random.choices(WORDS, k=count))


async def create(client: StreamClient, text: str = "") -> str:
    """A new session."""
    session_id: str = json.loads(await client.post("/sessions", {"text": text}))["session_id"]
    return session_id


async def appends(port: int, count: int, seconds: float) -> Load:
    """Each of some clients appends one word after another to a session of its own."""
    clients = [await StreamClient.connect(port) for _ in range(count)]
    sessions = [await create(client, words(5)) for client in clients]

    async def ask(client: StreamClient, number: int) -> None:
        await client.post(f"/sessions/{sessions[number]}/append", {"text": random.choice(WORDS)})

    measured = await measure(clients, ask, seconds)
    for client in clients:
        client.close()
    return measured


async def predictions(port: int, count: int, seconds: float, key: str = "") -> Load:
    """Each of some clients asks for the word after ten that were not read before."""
    clients = [await StreamClient.connect(port, key) for _ in range(count)]

    async def ask(client: StreamClient, _: int) -> None:
        await client.post("/predict", {"text": words(10)})

    measured = await measure(clients, ask, seconds)
    for client in clients:
        client.close()
    return measured
