"""The file of keys: what it may hold, what is wrong with it, and that no error repeats what stands there."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.access.key_file import Grant, Limits, new_key, parse, read
from app.access.routes import RouteGroup
from model.errors import ConfigurationError
from tests.app.access.keys import key_file, make_key, write_keys

HASH = "ab" * 32
SECRET = "pru_SECRETsecretSECRETsecretSECRETsecretSECRET12"


def test_a_new_key_has_256_bits_of_chance_and_its_sha_256_beside_it() -> None:
    pairs = [new_key() for _ in range(100)]
    assert len({key for key, _ in pairs}) == 100
    for key, digest in pairs:
        assert key.startswith("pru_")
        assert len(key) == len("pru_") + 43  # 6 bits a character
        assert hashlib.sha256(key.encode()).hexdigest() == digest


def test_several_keys_of_a_name_share_its_limits_and_each_has_an_end_of_its_own() -> None:
    old, new, other = make_key("alice", datetime(2030, 1, 31, tzinfo=UTC)), make_key("alice"), make_key("bob")
    text = key_file(
        old,
        new,
        other,
        alice={"requests_per_minute": 60, "tokens_per_minute": 1000, "routes": '["predict", "sessions"]'},
    )
    limits = Limits(60, 1000, frozenset({RouteGroup.PREDICT, RouteGroup.SESSIONS}))
    assert parse(text, "here").grants == {
        hashlib.sha256(old.text.encode()).digest(): Grant("alice", 1896048000.0, limits),
        hashlib.sha256(new.text.encode()).digest(): Grant("alice", None, limits),
        hashlib.sha256(other.text.encode()).digest(): Grant("bob", None, Limits()),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "wrong at keys: Field required"),
        ("[keys]\n", "wrong at keys: Dictionary should have at least 1 item"),
        (f'[keys]\n{HASH} = {{ name = "a" }}\n{HASH} = {{ name = "b" }}', "no TOML at end of document"),
        ("[keys]\nx = ", "no TOML at end of document"),
        ("\0", "no TOML at line 1, column 1"),
        (f'[keys]\n{SECRET} = {{ name = "a" }}', "wrong at keys, entry 1: String should match pattern"),
        (f'[keys]\n{HASH} = {{ name = "{SECRET}" }}', "wrong at keys, entry 1, name: this is a key and not a name"),
        (f'[keys]\n{HASH} = {{ name = "a b" }}', "wrong at keys, entry 1, name: String should match pattern"),
        (f"[keys]\n{HASH} = {{}}", "wrong at keys, entry 1, name: Field required"),
        (f'[keys]\n{HASH} = "alice"', "wrong at keys, entry 1: Input should be a valid dictionary"),
        (f'[keys]\n{HASH} = {{ name = "a", {SECRET} = 1 }}', "wrong at keys, entry 1, a field that is not known"),
        (f'{SECRET} = 1\n[keys]\n{HASH} = {{ name = "a" }}', "wrong at a field that is not known: Extra inputs"),
        (
            f'[keys]\n{HASH} = {{ name = "a", expires = 2030-01-01T00:00:00 }}',
            "entry 1, expires: a time needs its zone",
        ),
        (f'[keys]\n{HASH} = {{ name = "a", expires = "soon" }}', "entry 1, expires: Input should be a valid datetime"),
        (f'[limits.b]\n[keys]\n{HASH} = {{ name = "a" }}', "wrong at limits, entry 1: no key has this name"),
        (
            f'[limits.a]\nrequests_per_minute = 0\n[keys]\n{HASH} = {{ name = "a" }}',
            "limits, entry 1, requests_per_minute: Input should be greater than or equal to 1",
        ),
        (
            f'[limits.a]\ntokens_per_minute = "9"\n[keys]\n{HASH} = {{ name = "a" }}',
            "limits, entry 1, tokens_per_minute: Input should be a valid integer",
        ),
        (
            f'[limits.a]\nroutes = ["{SECRET}"]\n[keys]\n{HASH} = {{ name = "a" }}',
            "limits, entry 1, routes: Input should be 'probes', 'metrics'",
        ),
        ("a = " + "[" * 100_000, "no TOML"),
        ("a = " + "9" * 5000, "no TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_field_and_repeats_nothing(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "the file")
    message = str(caught.value)
    assert message.startswith("the file is ")
    assert said in message
    assert "\n" not in message
    assert SECRET not in message
    assert HASH not in message


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_keys(tmp_path / "keys.toml", key_file(make_key("alice")), mode)
    with pytest.raises(ConfigurationError, match="writable for others than its owner"):
        read(path)


def test_a_file_that_others_can_read_is_read_with_a_warning(tmp_path: Path) -> None:
    text = key_file(make_key("alice"))
    assert read(write_keys(tmp_path / "keys.toml", text, 0o600)).warnings == ()
    [warning] = read(write_keys(tmp_path / "keys.toml", text, 0o644)).warnings
    assert "keys.toml can be read by others than its owner; run chmod go-r on it" in warning


@pytest.mark.parametrize(("mode", "warnings"), [(0o440, 0), (0o444, 1)])
def test_a_file_of_another_user_may_be_read_by_its_group(
    mode: int, warnings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keys(tmp_path / "keys.toml", key_file(make_key("alice")), mode)
    assert len(read(path).warnings) == 1
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    assert len(read(path).warnings) == warnings


def test_what_is_no_file_that_can_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    latin = tmp_path / "latin"
    latin.write_bytes(b"# \xe9")
    latin.chmod(0o600)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (4 * 2**20 + 1))
    large.chmod(0o600)
    for path, said in {
        tmp_path / "nothing": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        pipe: "is no regular file",
        latin: "is no UTF-8 at byte 2",
        large: "is larger than 4194304 bytes",
    }.items():
        with pytest.raises(ConfigurationError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)
