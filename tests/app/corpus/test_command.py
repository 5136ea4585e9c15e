"""`pru score --ray` before any cluster: what is refused, what is said, and that nothing is begun for nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.corpus.part import score_part
from app.corpus.plan import Part, read_plan
from app.corpus.scorer import Scorer
from app.served_model import open_source
from tests.app.commands import run
from tests.app.on_ray.nodes import need_ray
from tests.commands import only_line


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": f"the film {number}"}) + "\n" for number in range(2100)))
    return path


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score in this process, where Ray would score elsewhere."""
    need_ray()

    @contextmanager
    def cluster() -> Iterator[int]:
        yield 2

    def score_parts(parts: Sequence[Part], folder: Path, out: Path, source: Any, cores: int) -> Iterator[Any]:
        from app.on_ray.scoring import Told

        served = open_source(source)
        scorer = Scorer(served.build_engine(), served.vocabulary, include_eos=read_plan(out).include_eos)
        assert (source.threads, cores) == (1, 2)
        # As of a worker that was killed.
        (out / ".part-000000.parquet.1a2b.partial").touch()
        bad = (folder / "bad").read_text().split() if (folder / "bad").exists() else []
        for part in reversed(parts):
            if str(part.number) in bad:
                yield Told(part, f"corpus.jsonl, row {part.first + 499}: bad")
                continue
            score_part(scorer, folder, part, out, read_plan(out).oov_penalty)
            yield Told(part, "")

    monkeypatch.setattr("app.corpus.command.cluster", cluster)
    monkeypatch.setattr("app.on_ray.scoring.score_parts", score_parts)


@pytest.mark.usefixtures("_here")
def test_what_could_not_be_scored_is_said_at_the_end_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "bad").write_text("1")
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out) == 2
    # The part that failed is none of what is scored.
    assert capsys.readouterr().err.splitlines() == [
        "scored 1,100 of 2,100 texts",
        f"error: corpus.jsonl, row 1500: bad; the rest is in {out}, and the same command goes on from it",
    ]
    assert sorted(path.name for path in out.glob("part-*")) == ["part-000000.parquet", "part-000002.parquet"]
    (tmp_path / "bad").unlink()
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out, "--json") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "_manifest.json", *(f"part-00000{number}.parquet" for number in range(3))
    ]  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["parts"], document["token_count"]) == (2100, 3, 2100 * 4)
    monkeypatch.setattr("app.corpus.command.cluster", None)
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out) == 0
    said = capsys.readouterr().err
    assert said.startswith("wikitext-2, int8: 2,100 texts, 8,400 tokens, ")


@pytest.mark.usefixtures("_here")
def test_each_part_that_could_not_be_scored_is_named_in_order_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "bad").write_text("0 1 2")
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out) == 2
    assert capsys.readouterr().err.splitlines() == [
        "corpus.jsonl, row 500: bad",
        "corpus.jsonl, row 1500: bad",
        "corpus.jsonl, row 2500: bad",
        "error: 3 of 3 parts could not be scored; nothing was scored",
    ]
    (tmp_path / "bad").write_text("0 2")
    monkeypatch.setattr("app.corpus.command.MOST_NAMED", 1)
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out) == 2
    assert capsys.readouterr().err.splitlines() == [
        "scored 1,000 of 2,100 texts",
        "corpus.jsonl, row 500: bad",
        "and 1 more",
        f"error: 2 of 3 parts could not be scored; the rest is in {out}, and the same command goes on from it",
    ]


@pytest.mark.usefixtures("_here")
def test_files_of_a_folder_that_are_left_out_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    corpus.rename(folder / "a.jsonl")
    (folder / "b.jsonl.gz").touch()
    (folder / "more").mkdir()
    assert run(monkeypatch, "score", folder, "--ray", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        f"warning: left out, as neither .jsonl nor .parquet: b.jsonl.gz, more (in {folder})"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "holds no row"),
        ("bad.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("a.txt", b"text", "neither .jsonl nor .parquet"),
    ],
)
def test_a_corpus_that_is_none_leaves_no_folder_behind(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    words: str,
) -> None:
    need_ray()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = list(tmp_path.iterdir())
    assert run(monkeypatch, "score", tmp_path / name, "--ray", "--out", tmp_path / "a" / "out") == 2
    assert words in only_line(capsys)
    assert list(tmp_path.iterdir()) == before


def test_a_folder_of_the_users_own_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path
) -> None:
    need_ray()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    assert run(monkeypatch, "score", corpus, "--ray", "--out", tmp_path / "own") == 2
    assert "is not empty and holds no run" in only_line(capsys)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["notes.txt"]
    assert run(monkeypatch, "score", corpus, "--ray", "--out", corpus) == 2
    assert "cannot be written: Not a directory" in only_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray"], "--ray writes a folder; name it by --out"),
        (["--ray", "--out", "out", "other.jsonl"], "give one PATH"),
        (["--ray", "--out", "out", "--each-line"], "leave --each-line and --lines away"),
        (["--ray", "--out", "out", "--lines"], "leave --each-line and --lines away"),
        (["--ray", "--out", "out", "--keep-blank-lines"], "leave --each-line and --lines away, and --keep-blank-lines"),
    ],
)
def test_options_that_go_with_no_corpus_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    corpus: Path,
    arguments: list[str],
    words: str,
) -> None:
    need_ray()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "score", corpus, *arguments) == 2
    assert words in only_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [corpus.name]


@pytest.mark.usefixtures("_here")
def test_with_a_penalty_each_text_and_all_together_have_a_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text('{"text": "The brown fox."}\n{"text": "The br0wn f0x."}\n')
    assert run(monkeypatch, "score", corpus, "--ray", "--out", out, "--oov-penalty", 6, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = pq.read_table(out).to_pylist()
    assert [row["oov_count"] for row in rows] == [0, 2]
    for row in (*rows, document):
        assert row["score"] == pytest.approx(row["log_likelihood"] - 6 * row["oov_count"])


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_without_the_extra_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path, package: str
) -> None:
    monkeypatch.setattr("app.on_ray.cluster.find_spec", lambda name: None if name == package else object())
    assert run(monkeypatch, "score", corpus, "--ray", "--out", tmp_path / "out") == 2
    assert only_line(capsys) == (
        f"error: --ray needs {package}, which is not installed; pip install '.[cpu,ray]' brings it"
    )
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_named_before_ray_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, corpus: Path
) -> None:
    need_ray()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert run(monkeypatch, "score", corpus, "--ray", "--out", tmp_path / "out") == 2
    assert only_line(capsys) == (
        f"error: there is no cluster at RAY_ADDRESS={address}: Connection refused; "
        "start it, or unset RAY_ADDRESS to use this machine"
    )


def test_what_ray_says_of_a_cluster_is_said(tmp_path: Path) -> None:
    program = """
import os, sys
os.environ["RAY_ADDRESS"] = "auto"
from app.on_ray.cluster import cluster
from model.errors import ConfigurationError
class Ray:
    def init(self, *_, **__): raise ConnectionError("nobody is there")
    def shutdown(self): pass
sys.modules["ray"] = Ray()
try:
    with cluster(): pass
except ConfigurationError as error:
    print(error)
print(os.environ["RAY_USAGE_STATS_ENABLED"], "RAY_AUTH_TOKEN" in os.environ)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "connecting to the cluster at auto\n"
    assert done.stdout.splitlines() == [
        "Ray cannot connect to the cluster at RAY_ADDRESS=auto: nobody is there",
        "0 False",
    ]


def test_a_cluster_without_a_free_core_is_waited_for_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.on_ray import cluster as module

    class Ray:
        free = iter([{}, {"CPU": 0.5}, {"CPU": 0.0}, {"CPU": 1.0}])

        def available_resources(self) -> dict[str, float]:
            return next(self.free)

    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    module._wait_for_a_core(Ray(), 8)
    assert capsys.readouterr().err == "none of the cluster's 8 cores is free; waiting for one\n"
    assert list(Ray.free) == []
