"""Personal sessions as tests start them: a cache so small and heavy that it shows in a few words."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from tests.app.talking import create

WINDOW, WEIGHT, THETA = 20, 0.3, 2.0
SETTINGS: dict[str, Any] = {"personal_window": WINDOW, "personal_lambda": WEIGHT, "personal_theta": THETA}


def personal(client: TestClient, text: str = "", **fields: Any) -> str:
    """The id of a new one."""
    return create(client, text, personal=True, **fields)
