"""A corpus scored on a cluster of two nodes: the same bytes whatever dies, and words about what cannot be scored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.corpus.plan import MANIFEST, make_plan
from app.corpus.rows import COLUMN
from app.served_model import Source
from model.errors import EngineMemoryError
from tests.app.on_ray.nodes import Nodes, need_ray, processes_named, two_nodes
from tests.source import ROOT

BUNDLE = ROOT / "bundles" / "wikitext-2"
SOURCE = Source(None, BUNDLE, "auto", "auto", 1)
WORKER = "ray::MapWorker"
PATIENCE = 120


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One cluster for the tests of this file; the last of them loses a node of it."""
    with two_nodes(tmp_path_factory.mktemp("nodes")) as running:
        yield running


def write_corpus(folder: Path, rows: int, words: int = 12, name: str = "corpus.jsonl") -> Path:
    """A file of so many different texts."""
    known = ["the", "film", "was", "released", "in", "United", "States", "and", "a", "second", "one"]
    texts = [" ".join(known[(row * 7 + place * (row % 5 + 1)) % 11] for place in range(words)) for row in range(rows)]
    path = folder / name
    path.write_text("".join(json.dumps({COLUMN: f"{text} {row}"}) + "\n" for row, text in enumerate(texts)))
    return path


def start(nodes: Nodes, corpus: Path, out: Path) -> subprocess.Popen[str]:
    """`pru score --ray` on the cluster."""
    command = [sys.executable, "-m", "pru", "score", str(corpus), "--ray", "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, env=nodes.environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and the last line that it wrote."""
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said.splitlines()[-1]


def wait_until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def parts_of(out: Path) -> dict[str, bytes]:
    """Every file of a folder that a run is made of."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def times(out: Path) -> dict[str, int]:
    """When each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def scored_here(corpus: Path, out: Path) -> dict[str, bytes]:
    """The same without Ray, one part after another in this process."""
    from app.corpus.plan import begin
    from app.on_ray.scoring import PartScorer
    from app.served_model import open_source

    served = open_source(SOURCE)
    plan = make_plan(corpus.parent, [corpus.name], served.identity(served.build_engine()), include_eos=True)
    worker = None
    for part in begin(out, plan):
        worker = worker or PartScorer(corpus.parent, out, SOURCE)
        assert worker({"part": np.array([part.number])})["error"].tolist() == [""]
    return parts_of(out)


@pytest.mark.soak
def test_a_machine_that_joins_gets_a_worker(nodes: Nodes, tmp_path: Path) -> None:
    # First of all: Ray keeps cores for a run that was killed for minutes, as the next test has one.
    process = start(nodes, write_corpus(tmp_path, 100_000, words=20), tmp_path / "out")
    wait_until(lambda: len(processes_named(WORKER)) == 2)
    nodes.gain_one()
    wait_until(lambda: len(processes_named(WORKER)) == 3)
    process.terminate()
    assert finish(process)[0] == 2
    wait_until(lambda: not processes_named(WORKER))


@pytest.mark.slow
def test_a_row_that_is_malformed_is_named_and_what_is_finished_is_kept_and_not_scored_again(
    nodes: Nodes, tmp_path: Path
) -> None:
    corpus, out = write_corpus(tmp_path, 12_000, words=1), tmp_path / "out"
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([*lines[:9_999], '{"text": "the film\n', *lines[10_000:]]))
    process = start(nodes, corpus, out)
    wait_until(lambda: list(out.glob("part-*")))
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_named(WORKER))
    finished = times(out)
    assert 0 < len(finished) < 11
    status, said = finish(start(nodes, corpus, out))
    assert status == 2
    assert said.startswith(f"error: {corpus}, row 10000: it is not valid JSON (")
    assert finished.items() <= times(out).items()
    assert sorted(times(out)) == [f"part-{number:06d}.parquet" for number in range(12) if number != 9]
    corpus.write_text("".join(lines))
    kept = times(out)
    whole = scored_here(corpus, out)
    assert kept.items() <= times(out).items()
    assert whole == scored_here(corpus, tmp_path / "anew")


@pytest.mark.slow
def test_a_part_over_which_three_workers_of_a_cluster_died_is_given_up_and_named(nodes: Nodes, tmp_path: Path) -> None:
    corpus, out = write_corpus(tmp_path, 1000, words=60), tmp_path / "out"
    process = start(nodes, corpus, out)
    tries = out / ".part-000000.parquet.tries"

    def kill_at(count: int) -> None:
        wait_until(lambda: tries.exists() and tries.stat().st_size == count)
        [worker] = processes_named(WORKER)
        os.kill(worker, signal.SIGKILL)

    for count in (1, 2, 3):
        kill_at(count)
    status, said = finish(process)
    assert (status, list(out.glob("part-*"))) == (2, [])
    assert said == (
        "error: corpus.jsonl, rows 1 to 1000: 3 workers died over them, as they do where memory runs out; give workers "
        "more of it, or divide long texts among several rows; nothing was scored"
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_and_a_node_that_is_lost_change_no_byte(nodes: Nodes, tmp_path: Path) -> None:
    corpus, out = write_corpus(tmp_path, 9000, words=4), tmp_path / "out"
    process = start(nodes, corpus, out)
    wait_until(lambda: times(out) and len(processes_named(WORKER)) >= 2)
    os.kill(processes_named(WORKER)[0], signal.SIGKILL)
    wait_until(lambda: len(times(out)) >= 3)
    nodes.lose_one()
    status, said = finish(process)
    assert status == 0, said
    assert said.startswith("wikitext-2, int8: 9,000 texts, ")
    assert parts_of(out) == scored_here(corpus, tmp_path / "here")


def worker_on(tmp_path: Path) -> tuple[object, Path]:
    """A worker in this process that is about to score three parts, and the folder."""
    need_ray()
    from app.corpus.plan import begin
    from app.on_ray.scoring import PartScorer
    from app.served_model import open_source

    corpus = write_corpus(tmp_path, 2100, words=1)
    served = open_source(SOURCE)
    plan = make_plan(tmp_path, [corpus.name], served.identity(served.build_engine()), include_eos=True)
    begin(tmp_path / "out", plan)
    return PartScorer(tmp_path, tmp_path / "out", SOURCE), tmp_path / "out"


def told(worker: object, number: int) -> str:
    assert callable(worker)
    answer = worker({"part": np.array([number])})
    assert answer["part"].tolist() == [number]
    return str(answer["error"][0])


def test_a_part_over_which_three_workers_died_is_given_up_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, out = worker_on(tmp_path)

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    tries = out / ".part-000001.parquet.tries"
    for count in range(3):
        with monkeypatch.context() as patch:
            # What kills a process leaves no time to tidy up.
            patch.setattr("app.on_ray.scoring.score_part", die)
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises(Died):
                told(worker, 1)
        assert tries.stat().st_size == count + 1
    assert told(worker, 1) == (
        "corpus.jsonl, rows 1001 to 2000: 3 workers died over them, as they do where memory runs out; "
        "give workers more of it, or divide long texts among several rows"
    )
    assert not (out / "part-000001.parquet").exists()
    assert told(worker, 2) == ""
    assert (out / "part-000002.parquet").exists()
    assert not (out / ".part-000002.parquet.tries").exists()


@pytest.mark.parametrize(
    ("error", "words"), [(EngineMemoryError("no room"), "no room"), (MemoryError(), "memory is full")]
)
def test_a_worker_out_of_memory_names_the_rows_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    worker, out = worker_on(tmp_path)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("app.on_ray.scoring.score_part", fail)
        assert told(worker, 0) == f"corpus.jsonl, rows 1 to 1000: {words}; divide long texts among several rows"
    assert told(worker, 0) == ""
    assert (out / "part-000000.parquet").exists()


def test_a_worker_with_another_bundle_scores_nothing(tmp_path: Path) -> None:
    _, out = worker_on(tmp_path)
    from app.on_ray.scoring import PartScorer

    manifest = json.loads((out / MANIFEST).read_text())
    manifest["model"]["sha256"] = "0" * 64
    (out / MANIFEST).write_text(json.dumps(manifest))
    answer = PartScorer(tmp_path, out, SOURCE)({"part": np.array([1])})
    assert answer["ends"].tolist() == [True]
    assert "is another model" in str(answer["error"][0])
    assert list(out.glob("*.parquet")) == []


def test_what_no_part_can_be_scored_for_ends_the_run(tmp_path: Path) -> None:
    worker, out = worker_on(tmp_path)
    (out / ".part-000000.parquet.tries").mkdir()
    assert callable(worker)
    answer = worker({"part": np.array([0])})
    assert answer["ends"].tolist() == [True]
    assert answer["error"].tolist() == [f"{out / '.part-000000.parquet.tries'}: Is a directory"]


def test_a_try_that_died_after_its_part_was_written_leaves_nothing(tmp_path: Path) -> None:
    worker, out = worker_on(tmp_path)
    assert told(worker, 2) == ""
    tries = out / ".part-000002.parquet.tries"
    tries.write_bytes(b".")
    written = (out / "part-000002.parquet").stat().st_mtime_ns
    assert told(worker, 2) == ""
    assert (tries.exists(), (out / "part-000002.parquet").stat().st_mtime_ns) == (False, written)
