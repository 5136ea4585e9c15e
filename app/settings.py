"""Settings of the service, read from the environment (`PRU_PORT=9000`).

Boundary: values and their limits only; nothing here opens a file or a socket.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.schemas import MOST_TEXTS, MOST_TOKENS
from model.errors import ConfigurationError

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder that workers share for their numbers: no setting, but the library's own."""
PROJECT_ROOT = Path(__file__).resolve().parents[1]

OpenRoute = Literal["probes", "metrics", "docs", "playground", "model", "tokenizer"]
"""Routes that may be open to all: those that ask the engine nothing."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]+)?|https?://\[[0-9a-f:.]+\](?::[0-9]+)?")


class LogLevel(StrEnum):
    """Least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def usable_cores() -> int:
    """Cores this process may run on, at most four: a step of the model has too little work for more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores)


def default_store() -> str:
    """A file in the user's folder for programs' state (`$XDG_STATE_HOME`, else `~/.local/state`)."""
    shared = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return f"sqlite:///{shared}/pru/sessions.db"


class Settings(BaseSettings):
    """Every setting, with the environment variable `PRU_<NAME>` that changes it."""

    model_config = SettingsConfigDict(env_prefix="PRU_", frozen=True, extra="forbid")

    bundle: Path = Field(PROJECT_ROOT / "bundles" / "wikitext-2", description="Bundle folder.")
    models: Path | None = Field(None, description="File that names the bundles to serve, in place of one bundle.")
    engine: str = Field("auto", description="Engine; auto takes the fastest that bundle and machine are known to run.")
    precision: str = Field("auto", description="Precision of the engine; auto takes the fastest.")
    threads: int = Field(default_factory=usable_cores, ge=1, le=256, description="Threads of the engine.")

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on; without keys only one of this machine's own."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Serving processes, each with an engine and limits of its own; sessions are shared.",
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Least severe log line written.")

    max_body_bytes: int = Field(4 * 2**20, ge=1, description="Largest request body.")
    body_budget_bytes: int = Field(64 * 2**20, ge=1, description="Bytes of all bodies that one process holds at once.")
    max_texts: int = Field(1024, ge=1, le=MOST_TEXTS, description="Most texts in one request.")
    max_tokens: int = Field(
        250_000, ge=1, le=MOST_TOKENS, description="Most tokens read in one request, all texts together."
    )
    session_store: str = Field(
        default_factory=default_store,
        description="Where sessions live: sqlite:///PATH (four slashes: absolute) or redis://HOST:PORT/DATABASE.",
    )
    session_ttl_seconds: float = Field(24 * 3600.0, ge=1, description="How long a session lives after its last use.")
    personal_window: int = Field(
        500, ge=1, le=2000, description="Tokens that a personal session's cache looks back on."
    )
    personal_lambda: float = Field(0.15, ge=0, lt=1, description="How much of each probability is that cache's.")
    personal_theta: float = Field(0.4, ge=0, le=100, description="How much similar contexts count for more in it.")
    prefix_cache_bytes: int = Field(128 * 2**20, ge=0, description="Memory for states of texts that were read.")
    queue_limit: int = Field(256, ge=0, description="Most requests that wait for the engine.")
    queue_tokens: int = Field(1_000_000, ge=1, description="Most tokens of all requests that wait, together.")
    max_connections: int = Field(1000, ge=1, description="Most connections of one serving process at once.")
    deadline_seconds: float = Field(60.0, gt=0, le=3600, description="Longest time a request waits and runs.")

    keys_file: Path | None = Field(None, description="File of the keys that callers need; see `pru keys`.")
    keys: str = Field("", description="The same as text, in place of a file.", repr=False)
    open_routes: Annotated[frozenset[OpenRoute], NoDecode] = Field(
        frozenset({"probes", "metrics", "docs", "playground"}), description="What needs no key, separated by commas."
    )
    allow_anonymous: bool = Field(False, description="Whether to listen on other addresses than loopback without keys.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may ask, as https://HOST or https://HOST:PORT, separated by commas."
    )

    @field_validator("open_routes", "cors_origins", mode="before")
    @classmethod
    def _separate(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("body_budget_bytes")
    @classmethod
    def _check_budget(cls, value: int, info: ValidationInfo) -> int:
        if value < (largest := info.data.get("max_body_bytes", 0)):
            raise ValueError(f"it must have room for a body of PRU_MAX_BODY_BYTES, which is {largest}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("an origin is https://HOST or https://HOST:PORT, in lower case and without a path")
        return value


def load_settings(**given: str | None) -> Settings:
    """Read the environment, where no option was `given`; `ConfigurationError` names the first that is wrong.

    A bundle that is given goes before a file of models that the environment names.
    """
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "bundle" in options:
        if "models" in options:
            raise ConfigurationError("--bundle and --models both say what is served; leave one of them out")
        options["models"] = None
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name in options:
            raise ConfigurationError(f"{option_of(name)}: {first['msg']}; correct or leave out this option") from None
        raise ConfigurationError(f"{variable_of(name)}: {first['msg']}; correct or unset this variable") from None


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"PRU_{name.upper()}"


def option_of(name: str) -> str:
    """The option of a command that goes before that variable."""
    return f"--{name.replace('_', '-')}"
