"""`pru keys`: what it makes is a key that holds, and what it lists is what the file says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.access.key_file import KEY, parse
from tests.commands import only_line
from tests.pru.commands import run

DIGEST = "5e" * 32
FILE = f"""
[limits.alice]
requests_per_minute = 600
routes = ["sessions", "predict"]

[keys]
{DIGEST} = {{ name = "alice", expires = 2027-01-31T01:00:00+01:00 }}
{"9f" * 32} = {{ name = "boris" }}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of keys, which no variable names."""
    for name in ("PRU_KEYS", "PRU_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "keys.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def test_a_new_key_and_its_line_are_given_to_programs_and_to_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys", "new", "alice", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert KEY.fullmatch(made["key"].encode())
    assert made["sha256"] == hashlib.sha256(made["key"].encode()).hexdigest()
    [(digest, grant)] = parse(f"[keys]\n{made['line']}\n", "here").grants.items()
    assert (digest.hex(), grant.name) == (made["sha256"], made["name"]) == (made["sha256"], "alice")
    assert run(monkeypatch, "keys", "new", "alice") == 0
    lines = capsys.readouterr().out.splitlines()
    assert KEY.fullmatch(lines[2].encode())
    assert lines[-1] == f'{hashlib.sha256(lines[2].encode()).hexdigest()} = {{ name = "alice" }}'


def test_keys_are_listed_for_programs_and_for_people(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys", "list", "--keys-file", file, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    unlimited = {"requests_per_minute": None, "tokens_per_minute": None, "routes": None}
    assert json.loads(printed.out)["keys"] == [
        {
            "name": "alice",
            "sha256": DIGEST,
            "expires": "2027-01-31T00:00:00+00:00",
            "requests_per_minute": 600,
            "tokens_per_minute": None,
            "routes": ["predict", "sessions"],
        },
        {"name": "boris", "sha256": "9f" * 32, "expires": None, **unlimited},
    ]
    monkeypatch.setenv("PRU_KEYS_FILE", str(file))
    monkeypatch.setenv("COLUMNS", "120")
    assert run(monkeypatch, "keys", "list") == 0
    shown = capsys.readouterr().out
    for cell in ("alice", DIGEST[:12], "2027-01-31 00:00 UTC", "600", "predict, sessions", "boris", "never"):
        assert cell in shown


def test_a_list_without_a_file_says_how_to_name_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys", "list") == 2
    assert only_line(capsys).endswith("name a file of them with PRU_KEYS_FILE or --keys-file")
    assert run(monkeypatch, "keys", "list", "--keys-file", file.with_name("none")) == 2
    assert "none cannot be read" in only_line(capsys)
