"""The bundle contract between export and serving: a folder with a manifest, a vocabulary and engine artefacts.

    manifest.json           everything about the model, and the sum of every other file
    tokenizer.json          the vocabulary
    onnx/<precision>/...    graphs and weights for ONNX Runtime
    torchscript/float32/... programs for torch

Boundary: files and their sums. Knows nothing of how an artefact is made or run, and imports no torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.config import ModelConfig
from model.conventions import Convention
from model.errors import BundleError, TextError
from model.files import sha256_of, write_json
from model.vocabulary import Vocabulary

FORMAT_VERSION = 2
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
MAX_MANIFEST_BYTES = 4 << 20
"""Far more than a manifest has, and little to read."""

_MEND = "restore the file, or export the bundle again"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileSum(_Part):
    """What a file of the bundle must be."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Validation(_Part):
    """What an artefact was measured to do on one machine, against the model that it was made of."""

    device: Literal["cpu", "cuda"]
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    data: str
    tokens: int
    differences: dict[str, float]
    perplexity: float
    reference_perplexity: float
    cost: float
    """Relative change of perplexity: 0.002 is 0.2% worse than the reference."""


class Artefact(_Part):
    """What one engine needs in one precision, and where it was validated: when it was accepted, and since."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    validated: Annotated[tuple[Validation, ...], Field(min_length=1)]


class Metric(_Part):
    """Perplexity of one artefact on a named text, read as one stream from the initial `<eos>`."""

    data: str
    engine: str
    precision: str
    perplexity: float
    tokens: int


class Manifest(_Part):
    """Content of `manifest.json`. Fields this version does not know are ignored."""

    format_version: int
    name: Annotated[str, Field(min_length=1)]
    model: ModelConfig
    convention: Convention
    files: dict[str, FileSum]
    engines: dict[str, dict[str, Artefact]]
    metrics: tuple[Metric, ...]
    training: dict[str, Any]
    licence: str | None
    attribution: str | None
    intended_use: str | None = None
    limitations: str | None = None


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. `sha256` is that of the manifest, which holds every other sum: it names the whole bundle."""

    folder: Path
    manifest: Manifest
    sha256: str

    def vocabulary(self) -> Vocabulary:
        """The bundle's vocabulary; `BundleError` where it does not fit the model."""
        path = self.folder / TOKENIZER
        try:
            vocabulary = Vocabulary.load(path)
        except TextError as error:
            raise BundleError(f"{error}; {_MEND}") from None
        if len(vocabulary) != self.manifest.model.vocabulary_size:
            raise BundleError(
                f"{path} holds {len(vocabulary)} words, the model {self.manifest.model.vocabulary_size}; {_MEND}"
            )
        return vocabulary

    def paths(self, artefact: Artefact) -> list[Path]:
        """Where an artefact's files are."""
        return [self.folder / name for name in artefact.files]


def open_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Open a bundle, check its manifest and, unless `verify` is false, the sum of every file.

    Raises `BundleError` that names the file: one missing, truncated, altered, of another format version, or whose path
    leaves the folder or passes through a link.
    """
    path = folder / MANIFEST
    data = _read_manifest(folder)
    manifest = _parse(path, data)
    for name, expected in manifest.files.items():
        _check(folder, name, expected, verify)
    needed = [TOKENIZER, *(name for artefact in _artefacts(manifest) for name in artefact.files)]
    if unlisted := sorted(set(needed) - manifest.files.keys()):
        raise BundleError(f"{path} holds no sum of {unlisted[0]}; export the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(data).hexdigest())


def bundle_sha256(folder: Path) -> str:
    """The name of the bundle that is in a folder now, nothing of it checked; `BundleError` where it has no manifest."""
    return hashlib.sha256(_read_manifest(folder)).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, the last file of a bundle."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def sums_of(folder: Path) -> dict[str, FileSum]:
    """Sum and size of every file in a bundle's folder but the manifest, by relative path in sorted order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): FileSum(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in files
    }


def _artefacts(manifest: Manifest) -> Iterator[Artefact]:
    for precisions in manifest.engines.values():
        yield from precisions.values()


def _read_manifest(folder: Path) -> bytes:
    """The manifest's bytes, if it is a plain file of a sane size: a device would never end, a pipe never begin."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; give the folder that `pru export` wrote")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{path} is no plain file; {_MEND}")
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; give a folder that `pru export` wrote") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{path} is a link; a bundle holds only files of its own: {_MEND}") from None
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES:,} bytes, which no manifest is; {_MEND}")
    return data


def _parse(path: Path, data: bytes) -> Manifest:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); {_MEND}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}; "
            "export the bundle again or use the program version that wrote it"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}; {_MEND}") from None


def _check(folder: Path, name: str, expected: FileSum, verify: bool) -> None:
    """Check one file of the manifest."""
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"{folder / MANIFEST} names {name!r}, which is not a path inside the bundle; {_MEND}")
    path = folder / relative
    steps = [path, *path.parents][: len(relative.parts)]
    try:
        if linked := next((step for step in steps if step.is_symlink()), None):
            raise BundleError(f"{linked} is a link; a bundle holds only files of its own: {_MEND}")
        if not path.is_file():
            raise BundleError(f"{path} is missing; {_MEND}")
        if (size := path.stat().st_size) != expected.bytes:
            raise BundleError(f"{path} has {size:,} bytes instead of {expected.bytes:,}; {_MEND}")
        if verify and sha256_of(path) != expected.sha256:
            raise BundleError(f"{path} was altered: its sha256 is not the manifest's; {_MEND}")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
