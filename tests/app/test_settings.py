"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import PROJECT_ROOT, load_settings
from model.errors import ConfigurationError


def test_without_any_variable_the_bundled_model_is_served_to_this_machine_alone() -> None:
    settings = load_settings()
    assert settings.bundle == PROJECT_ROOT / "bundles" / "wikitext-2"
    assert (settings.host, settings.port, settings.precision) == ("127.0.0.1", 8000, "auto")
    assert 1 <= settings.threads <= 4


def test_variables_change_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUNDLE": "/data/b", "PORT": "9", "LOG_LEVEL": "error", "DEADLINE_SECONDS": "1.5"}.items():
        monkeypatch.setenv(f"PRU_{name}", value)
    settings = load_settings()
    assert settings.bundle == Path("/data/b")
    assert (settings.port, settings.log_level, settings.deadline_seconds) == (9, "error", 1.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"), ("PORT", "65536"), ("THREADS", "0"), ("LOG_LEVEL", "loud"), ("MAX_TOKENS", "-1"),
        ("MAX_TOKENS", "1000001"), ("MAX_TEXTS", "65537"),
        ("DEADLINE_SECONDS", "nan"), ("DEADLINE_SECONDS", "inf"), ("HOST", ""),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PRU_{name}", value)
    with pytest.raises(ConfigurationError, match=f"^PRU_{name}: .* variable$"):
        load_settings()


def test_lists_are_separated_by_commas_and_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRU_OPEN_ROUTES", " probes,metrics ,")
    monkeypatch.setenv("PRU_CORS_ORIGINS", "https://a.example, http://[::1]:8000")
    settings = load_settings()
    assert settings.open_routes == {"probes", "metrics"}
    assert settings.cors_origins == ("https://a.example", "http://[::1]:8000")
    monkeypatch.setenv("PRU_OPEN_ROUTES", "")
    assert load_settings().open_routes == frozenset()
    # What asks the engine, or belongs to somebody, is never open beside keys.
    for name in ("sessions", "predict", "perplexity", "completions", "everything"):
        monkeypatch.setenv("PRU_OPEN_ROUTES", name)
        with pytest.raises(ConfigurationError, match=r"^PRU_OPEN_ROUTES: Input should be 'probes'"):
            load_settings()
