"""A modified Kneser-Ney 5-gram of WikiText-2 (KenLM) beside the bundled model: the same text, the same words counted.

Boundary: runs where KenLM is installed and the corpus is at hand, and says what it lacks elsewhere. Neither belongs to
the project's dependencies.
"""

from __future__ import annotations

import heapq
import importlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from app.engines import load_engine
from benchmarks.harness import Row, interleaved, milliseconds, shown
from model.bundle import Bundle, open_bundle
from model.conventions import EOS, UNK

THREADS = 2
TOP = 5
COMMANDS = "lmplz", "build_binary"
VALIDATION = "wikitext-2 valid"
"""The validation text's name in a bundle's metrics."""
UNKNOWN = "UnknownWord"
"""Stands for `<unk>`, which KenLM keeps for what its training text does not hold. WikiText-2 holds no such word."""


def missing() -> str | None:
    """What a comparison would still need, in words."""
    lacking = [f"{name} on PATH" for name in COMMANDS if shutil.which(name) is None]
    if importlib.util.find_spec("kenlm") is None:
        lacking.append("the Python module kenlm")
    if not (_corpus() / "train.txt").is_file():
        lacking.append("PRU_DATA_DIR to name a folder that holds wikitext-2/train.txt")
    return ", ".join(lacking) or None


def rows(folder: Path, bundle_folder: Path, rounds: int) -> list[Row]:
    """Perplexity, size and speed of both models; what KenLM writes goes into a new `folder`."""
    folder.mkdir(parents=True)
    bundle = open_bundle(bundle_folder)
    probing, trie = _train(folder)
    kenlm = importlib.import_module("kenlm")
    model = kenlm.Model(str(probing))
    return [_perplexity(model, bundle), _size(probing, trie, bundle), _speed(kenlm, model, bundle, rounds)]


def _corpus() -> Path:
    return Path(os.environ.get("PRU_DATA_DIR", "")) / "wikitext-2"


def _words(line: str) -> str:
    """A line of the corpus as KenLM reads it."""
    return line.replace(UNK, UNKNOWN)


def _train(folder: Path) -> tuple[Path, Path]:
    """KenLM's two forms of the model: the fast one, which is its default, and the small one."""
    text, arpa = folder / "train.txt", folder / "model.arpa"
    with (_corpus() / "train.txt").open(encoding="utf-8") as lines, text.open("w", encoding="utf-8") as written:
        written.writelines(map(_words, lines))
    train = ("lmplz", "-o", "5", "--skip_symbols", "-S", "1G", "-T", folder, "--text", text, "--arpa", arpa)
    subprocess.run(train, check=True, capture_output=True)
    forms = {kind: folder / f"model.{kind}" for kind in ("probing", "trie")}
    for kind, path in forms.items():
        subprocess.run(("build_binary", kind, arpa, path), check=True, capture_output=True)
    return forms["probing"], forms["trie"]


def _perplexity(model: Any, bundle: Bundle) -> Row:
    """Every token and every line's end is scored. KenLM begins each line afresh, as it was trained to."""
    log10, count = 0.0, 0
    with (_corpus() / "valid.txt").open(encoding="utf-8") as lines:
        for line in lines:
            log10 += model.score(" ".join(_words(line).split()), bos=True, eos=True)
            count += len(line.split()) + 1
    [metric] = [metric for metric in bundle.manifest.metrics if (metric.data, metric.precision) == (VALIDATION, "int8")]
    perplexity = 10 ** (-log10 / count)
    return shown(
        "perplexity of WikiText-2's validation text: 5-gram / int8",
        f"5-gram {perplexity:.1f} ({count:,} tokens), int8 {metric.perplexity:.1f} ({metric.tokens:,} tokens)",
        perplexity / metric.perplexity,
    )


def _size(probing: Path, trie: Path, bundle: Bundle) -> Row:
    """KenLM's file against the whole bundle with its tokenizer."""
    fast, small = (path.stat().st_size for path in (probing, trie))
    ours = sum(file.stat().st_size for file in bundle.folder.rglob("*") if file.is_file())
    return shown(
        "size on disk: 5-gram (smallest form) / bundle",
        f"5-gram {fast / 1e6:.1f} MB, as a trie {small / 1e6:.1f} MB, bundle {ours / 1e6:.1f} MB",
        small / ours,
    )


def _speed(kenlm: Any, model: Any, bundle: Bundle, rounds: int) -> Row:
    """One word read and the five likeliest next ones found. An n-gram model has no way but to score every word.

    It does so through its Python module, a call a word, which is most of its time: in C++ it would be faster.
    """
    vocabulary = bundle.vocabulary()
    words = ["</s>" if word == EOS else _words(word) for word in vocabulary.words]
    engine = load_engine(bundle, "int8", THREADS)
    ids, one = np.array([[vocabulary.id_of("the")]], np.int32), np.ones(1, np.int32)
    zeros = np.zeros((1, engine.state_size), np.float32)
    before, after, unused = kenlm.State(), kenlm.State(), kenlm.State()
    model.BeginSentenceWrite(before)

    def search() -> list[str]:
        model.BaseScore(before, "the", after)
        score = model.BaseScore
        return heapq.nlargest(TOP, words, key=lambda word: score(after, word, unused))

    def predict() -> None:
        hidden, _ = engine.advance(ids, one, zeros)
        engine.top_k(hidden[:, -1], TOP)

    times = interleaved({"n-gram": search, "int8": predict}, rounds)
    return shown(
        f"one token read, top {TOP} of {len(words):,} words: 5-gram / int8",
        milliseconds(**{"5-gram": times["n-gram"]}, int8=times["int8"]),
        times["n-gram"] / times["int8"],
    )
