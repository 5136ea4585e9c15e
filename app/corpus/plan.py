"""What is to be scored, cut into parts: fixed ranges of rows, whoever scores them, and a folder that holds one run.

Boundary: files in, a plan and what is left of it out. A part is done when its file is in the folder, which happens all
at once, so a run that was killed goes on with the parts that are missing. What is in a file is `app.corpus.part`.

    _manifest.json           the plan, written before anything is scored
    part-000000.parquet      a row for every text, one file a part
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.corpus.rows import JSON_LINES, PARQUET, Row, raw_rows
from app.schemas import ModelIdentity
from model.errors import ConfigurationError, TextError
from model.files import read_json, write_json

FORMAT = 1
MANIFEST = "_manifest.json"
"""Readers of a folder of Parquet skip names that begin with `_` or `.`."""
UNIT = 1000
"""Rows of the smallest part, which takes a core some seconds. Larger parts are whole multiples of it."""
LOCK = ".lock"
MOST_PARTS = 10_000
"""Parts beyond which they become larger: each is a file of the folder and a message to whoever scores it."""


class Part(BaseModel):
    """Rows `first` to `first + rows - 1` of a file; in JSON Lines they begin at byte `offset`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    file: str
    first: int
    rows: int
    offset: int
    sha256: str
    """Of what the rows hold."""

    @property
    def name(self) -> str:
        """Its file in the folder."""
        return f"part-{self.number:06d}.parquet"

    @property
    def where(self) -> str:
        """Its rows, for people."""
        return f"{self.file}, rows {self.first} to {self.first + self.rows - 1}"


class Plan(BaseModel):
    """A whole run: what is read, by which model and how, and the parts it is cut into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    model: ModelIdentity
    include_eos: bool
    oov_penalty: float | None = None
    rows_per_part: int
    files: list[str]
    parts: list[Part]

    @property
    def rows(self) -> int:
        """Texts in all."""
        return sum(part.rows for part in self.parts)

    def is_same_run(self, other: Plan) -> bool:
        """Whether parts of one are parts of the other, where their rows are the same."""
        return self.model_dump(exclude={"parts"}) == other.model_dump(exclude={"parts"})


def find_files(path: Path) -> tuple[Path, list[str], list[str]]:
    """The folder of a corpus, the names of its files, in order: the one that `path` is, or all that it holds; and what
    else is there, but for hidden files, which other readers of folders leave out, too.

    Raises `TextError` where there is no corpus.
    """
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if entry.name[0] not in "._")
        names = [entry.name for entry in entries if entry.suffix in {JSON_LINES, PARQUET} and entry.is_file()]
        if not names:
            raise TextError(f"{path} holds no {JSON_LINES} and no {PARQUET} files; give a folder that does")
        return path, names, [entry.name for entry in entries if entry.name not in names]
    if not path.exists():
        raise TextError(f"{path} does not exist; give a file, or a folder of files")
    if path.suffix not in {JSON_LINES, PARQUET}:
        raise TextError(f"{path} is neither {JSON_LINES} nor {PARQUET}; a corpus is JSON Lines or Parquet, named so")
    return path.parent, [path.name], []


def make_plan(
    folder: Path, files: Sequence[str], model: ModelIdentity, *, include_eos: bool, oov_penalty: float | None = None
) -> Plan:
    """Read every file once, and cut it into parts; `TextError` where one cannot be read."""
    units = {name: _units(folder / name) for name in files}
    count = sum(len(of_file) for of_file in units.values())
    if not count:
        raise TextError(f"{folder / files[0]} holds no row; give a corpus with texts")
    together = -(-count // MOST_PARTS)
    parts: list[Part] = []
    for name, of_file in units.items():
        for start in range(0, len(of_file), together):
            some = of_file[start : start + together]
            parts.append(
                Part(
                    number=len(parts),
                    file=name,
                    first=start * UNIT + 1,
                    rows=sum(rows for _, rows, _ in some),
                    offset=some[0][0],
                    sha256=sha256_of_units(digest for _, _, digest in some),
                )
            )
    return Plan(
        model=model,
        include_eos=include_eos,
        oov_penalty=oov_penalty,
        rows_per_part=together * UNIT,
        files=list(files),
        parts=parts,
    )


def read_plan(out: Path) -> Plan:
    """The plan of a folder; `ConfigurationError` where it holds none that this version reads."""
    found = read_json(out / MANIFEST, ConfigurationError)
    try:
        plan = Plan.model_validate(found)
    except ValidationError:
        plan = None
    if plan is None or plan.format != FORMAT:
        raise ConfigurationError(
            f"{out / MANIFEST} is of another version of this program; give another folder by --out"
        )
    return plan


def check_folder(out: Path) -> None:
    """Raise `ConfigurationError` where a folder holds what is no run of this version, with nothing changed."""
    try:
        if (out / MANIFEST).exists():
            read_plan(out)
        elif out.exists() and any(entry.name != LOCK for entry in out.iterdir()):
            raise ConfigurationError(f"{out} is not empty and holds no run; give another folder by --out")
    except OSError as problem:
        raise _not_written(out, problem) from None


def begin(out: Path, plan: Plan) -> list[Part]:
    """Make a folder for a run, or go on in the one that holds it; the parts that are missing.

    Raises `ConfigurationError` where the folder holds anything else, with nothing changed.
    """
    from app.corpus.part import read_summary  # noqa: PLC0415 - pyarrow, of the extra `ray`

    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST).exists() and not read_plan(out).is_same_run(plan):
        raise ConfigurationError(
            f"{out} holds another run, of other files, another model or other options; give another folder by --out"
        )
    missing = []
    for part in plan.parts:
        if not (out / part.name).exists():
            missing.append(part)
        elif read_summary(out / part.name).sha256 != part.sha256:
            raise ConfigurationError(
                f"{out / part.name} was scored when {part.where}, were others; give another folder by --out"
            )
    tidy(out)
    write_json(out / MANIFEST, plan.model_dump(mode="json"))
    return missing


def tidy(out: Path) -> None:
    """Remove what processes that were killed leave behind."""
    for left in [*out.glob(".part-*"), *out.glob(f".{MANIFEST}.*")]:
        left.unlink()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Be the only one that scores into a folder; `ConfigurationError` where another process does."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise _not_written(out, problem) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"another process scores into {out}; wait for its end, or end it") from None
        yield
    finally:
        with suppress(OSError):
            os.close(handle)


def _not_written(out: Path, problem: OSError) -> ConfigurationError:
    return ConfigurationError(f"{out} cannot be written: {problem.strerror}; give another folder by --out")


def hashed(rows: Iterable[Row], units: list[bytes]) -> Iterator[Row]:
    """The rows as they are, while SHA-256 of every `UNIT` of them, and of what is left, is put into a list."""
    digest, count = hashlib.sha256(), 0
    for row in rows:
        digest.update(row if isinstance(row, bytes) else _framed(row))
        count += 1
        if count == UNIT:
            units.append(digest.digest())
            digest, count = hashlib.sha256(), 0
        yield row
    if count:
        units.append(digest.digest())


def sha256_of_units(units: Iterable[bytes]) -> str:
    """What the rows of a part are known by."""
    return hashlib.sha256(b"".join(units)).hexdigest()


def _units(file: Path) -> list[tuple[int, int, bytes]]:
    """Offset (0 in Parquet), rows and SHA-256 of every `UNIT` rows of a file."""
    digests: list[bytes] = []
    offsets: list[int] = []
    offset = count = 0
    for row in hashed(raw_rows(file), digests):
        if count % UNIT == 0:
            offsets.append(offset)
        offset += len(row) if isinstance(row, bytes) else 0
        count += 1
    counts = [min(UNIT, count - start) for start in range(0, count, UNIT)]
    return list(zip(offsets, counts, digests, strict=True))


def _framed(text: str | None) -> bytes:
    """A value of a column so that no two columns are the same bytes."""
    if text is None:
        return b"\xff"
    encoded = text.encode()
    return len(encoded).to_bytes(8, "little") + encoded
