"""What tests of sessions say to a service."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient


def post(client: TestClient, path: str, status: int = 200, key: str | None = None, **fields: Any) -> dict[str, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    response = client.post(path, json=fields, headers=headers)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def create(client: TestClient, text: str = "", **fields: Any) -> str:
    session_id: str = post(client, "/sessions", 201, text=text, **fields)["session_id"]
    return session_id


def append(client: TestClient, session_id: str, text: str = "", **fields: Any) -> dict[str, Any]:
    return post(client, f"/sessions/{session_id}/append", text=text, **fields)


def close_to(found: Any, expected: Any) -> None:
    """Equal, floats within 1e-5."""
    assert json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 4)) == json.loads(
        json.dumps(expected), parse_float=lambda text: round(float(text), 4)
    )
