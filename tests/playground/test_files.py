"""The page as a server sends it: types, header fields, size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.routes.playground import FOLDER
from tests.app.serving import serving

MOST_BYTES = 150_000
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as ready:
        yield ready


def files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def directives(policy: str) -> dict[str, list[str]]:
    """A content security policy, taken apart."""
    parts = [part.split() for part in policy.split(";")]
    return {name: values for name, *values in parts}


@pytest.mark.parametrize("path", ["/", *(f"/static/{path.name}" for path in files())])
def test_every_file_has_its_type_and_the_policy_and_is_asked_about_before_it_is_used_again(
    client: TestClient, path: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    wanted = TYPES[".html" if path == "/" else Path(path).suffix]
    # Before 3.12, Python has JavaScript under its older name.
    assert answer.headers["content-type"].partition(";")[0].replace("application/java", "text/java") == wanted
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert directives(answer.headers["content-security-policy"]) == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'"],
        "connect-src": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_and_all_its_files_are_small() -> None:
    assert sum(path.stat().st_size for path in files()) < MOST_BYTES


def test_nothing_outside_the_folder_is_served_as_a_file_of_the_page(client: TestClient) -> None:
    for path in ("/static/../main.py", "/static/%2e%2e/main.py", "/static/", "/static/nothing.js"):
        assert client.get(path).status_code == 404, path


def test_the_page_is_read_and_not_written(client: TestClient) -> None:
    assert client.head("/").headers["content-length"] == str((FOLDER / "index.html").stat().st_size)
    assert client.post("/").status_code == 405


def test_every_module_is_fetched_at_once_and_not_when_the_one_before_it_was_read() -> None:
    page = (FOLDER / "index.html").read_text()
    for path in files():
        if path.suffix == ".js":
            assert page.count(f'"static/{path.name}"') == 1, path.name
