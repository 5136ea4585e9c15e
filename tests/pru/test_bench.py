"""`pru bench`: figures of this machine and of a server, around small models."""

from __future__ import annotations

import json
from pathlib import Path
from time import sleep

import pytest

from pru import bench
from tests.app.access.keys import key_file, make_key
from tests.app.bundles import export_small_bundle
from tests.app.processes import served
from tests.commands import only_line
from tests.pru.commands import run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_bundle(tmp_path_factory.mktemp("small"))


def test_every_engine_that_the_machine_has_for_the_bundle_is_measured(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0.3)
    assert run(monkeypatch, "engines", "--bundle", bundle, "--json") == 0
    offers = json.loads(capsys.readouterr().out)["engines"]
    ready = dict.fromkeys((offer["engine"], offer["precision"]) for offer in offers if offer["missing"] is None)
    assert run(monkeypatch, "bench", "--bundle", bundle, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    assert [(one["engine"], one["precision"]) for one in found["engines"]] == list(ready)
    for one in found["engines"]:
        assert 0 < one["step_ms"] <= one["step_ms_p95"]
        assert one["prompt_tokens_per_second"] > 0
        assert one["score_tokens_per_second"] > 0
        assert 0 < one["load_seconds"] < 60
        assert 20e6 < one["memory_bytes"] < 20e9
    first = found["engines"][0]["engine"]
    assert run(monkeypatch, "bench", "--bundle", bundle, "--engine", first) == 0
    assert first in capsys.readouterr().out


def test_calls_are_timed_one_by_one_for_about_so_long() -> None:
    times = bench._times(lambda: sleep(0.01), 0.1)
    assert 2 <= len(times) <= 8
    assert min(times) >= 0.01


def test_an_engine_that_cannot_run_says_what_it_lacks(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "bench", "--bundle", bundle, "--engine", "cuda") == 2
    assert "the bundle holds no cuda artefact" in only_line(capsys)
    assert run(monkeypatch, "bench", "--bundle", bundle, "--engine", "steam") == 2
    assert "there is no engine named 'steam'" in only_line(capsys)


def test_a_server_is_asked_by_several_clients_for_a_bounded_time(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served("-m", "app", bundle=str(bundle)) as service:
        service.wait_until_ready()
        url = service.url
        assert run(monkeypatch, "bench", "--url", url, "--clients", 3, "--seconds", 1, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert run(monkeypatch, "bench", "--url", url, "--seconds", 0.5) == 0
        assert found["model"]["name"] in capsys.readouterr().out
        assert run(monkeypatch, "bench", "--url", f"{url}/nothing") == 2
        assert "answers with status 404" in only_line(capsys)
    assert found["clients"] == 3
    assert found["refused"] == 0
    assert 1 <= found["seconds"] < 5
    assert found["requests_per_second"] == pytest.approx(found["requests"] / found["seconds"])
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= 1e3 * found["seconds"]
    assert run(monkeypatch, "bench", "--url", url) == 2
    assert f"{url} does not answer: " in only_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "ftp://here"], "ftp://here is no address of a server"),
        (["--url", "http://[::1"], "http://[::1 is no address of a server"),
        (["--url", "http://127.0.0.1:99999"], "http://127.0.0.1:99999 is no address of a server"),
        (["--url", "http://127.0.0.1:1", "--engine", "onnx"], "--url measures what the server has chosen"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(monkeypatch, "bench", *arguments) == 2
    assert only_line(capsys).startswith(f"error: {message}")


def test_a_server_that_needs_a_key_is_asked_with_that_of_the_environment(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = make_key("alice"), make_key("boris")
    keys = key_file(key, other, boris={"routes": ["model"]})
    with served("-m", "app", bundle=str(bundle), keys=keys) as service:
        service.wait_until_ready()
        asked = ("bench", "--url", service.url, "--seconds", 0.5, "--json")
        for sent, status in ((None, 401), (other.text, 403)):
            if sent:
                monkeypatch.setenv("PRU_API_KEY", sent)
            assert run(monkeypatch, *asked) == 2
            assert only_line(capsys).endswith(
                f" answers with status {status}; give a key for /predict with PRU_API_KEY"
            )
        monkeypatch.setenv("PRU_API_KEY", key.text)
        assert run(monkeypatch, *asked) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["refused"], found["requests"] > 0) == (0, True)
        monkeypatch.setenv("PRU_API_KEY", "sec\nret")
        assert run(monkeypatch, *asked) == 2
        assert "sec" not in only_line(capsys)
