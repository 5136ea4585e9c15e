"""The file that names the models to serve.

    default = "news"

    [models.news]
    bundle = "news-2024"                  # a folder beside the file, or below it

    [models.chat]
    bundle = "chat"
    engine = "onnx"                       # else PRU_ENGINE, PRU_PRECISION and PRU_THREADS
    precision = "float32"
    threads = 1

Boundary: text in, names and folders out; no bundle is opened. A path is relative to the file and stays in its folder,
links followed, so that whoever may write the file can have nothing else read.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.served_model import Source
from app.settings import Settings
from model.errors import ConfigurationError

MAX_BYTES = 1 << 20
MAX_MODELS = 100
"""More than fit into any memory; names are labels of metrics."""
_MEND = "correct the file; what is served stays as it is until then"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""What a model may be called: fit for a path, a label and a log line."""


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Entry(_Table):
    bundle: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]*$")]
    engine: str | None = None
    precision: str | None = None
    threads: Annotated[int | None, Field(ge=1, le=256)] = None


class _File(_Table):
    default: Name
    models: Annotated[dict[Name, _Entry], Field(min_length=1, max_length=MAX_MODELS)]

    @model_validator(mode="after")
    def _default_is_there(self) -> Self:
        if self.default not in self.models:
            raise ValueError(f"the default {self.default!r} is none of the models")
        return self


@dataclass(frozen=True)
class Plan:
    """What a file says: each model's source by its name, in the file's order, and which is the default."""

    default: str
    sources: dict[str, Source]


def read_models(path: Path, settings: Settings) -> Plan:
    """Read a file of models; `ConfigurationError` where it is missing or not as above.

    `settings` say how an engine is run where the file does not.
    """
    try:
        content = _File.model_validate(tomllib.loads(_read(path).decode()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part).encode("unicode_escape").decode() for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}{': ' if where else ''}{first['msg']}; {_MEND}") from None
    except (ValueError, RecursionError) as error:  # No UTF-8, no TOML, or a number with thousands of digits.
        raise ConfigurationError(f"{path} is not valid TOML ({error}); {_MEND}") from None
    sources = {
        name: Source(
            name=name,
            bundle=_inside(path, name, entry.bundle),
            engine=entry.engine or settings.engine,
            precision=entry.precision or settings.precision,
            threads=entry.threads or settings.threads,
        )
        for name, entry in content.models.items()
    }
    return Plan(content.default, sources)


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"{path} is no plain file; {_MEND}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; {_MEND}") from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {MAX_BYTES:,} bytes; {_MEND}")
    return data


def _inside(path: Path, name: str, bundle: str) -> Path:
    """The folder of a bundle, every link on the way followed now and for good."""
    root = Path(os.path.realpath(path.parent))
    folder = Path(os.path.realpath(root / bundle))
    if not folder.is_relative_to(root):
        raise ConfigurationError(f"{path}: models.{name}.bundle leads out of {root}; put the bundle there, and {_MEND}")
    return folder
