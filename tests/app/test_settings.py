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
        ("DEADLINE_SECONDS", "nan"), ("DEADLINE_SECONDS", "inf"), ("HOST", ""),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PRU_{name}", value)
    with pytest.raises(ConfigurationError, match=f"^PRU_{name}: .* variable$"):
        load_settings()
