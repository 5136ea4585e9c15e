"""What a service's metrics say, read as Prometheus reads them."""

from __future__ import annotations

import httpx2
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families


def numbers(client: TestClient | httpx2.Client, url: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    response = client.get(f"{url}/metrics")
    assert response.status_code == 200, response.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def number(client: TestClient | httpx2.Client, sample: str, url: str = "", **labels: str) -> float:
    """One sample; 0 where there is none yet."""
    return numbers(client, url).get((sample, frozenset(labels.items())), 0.0)
