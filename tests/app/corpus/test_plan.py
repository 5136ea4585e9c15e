"""A corpus cut into parts by its rows alone, and a folder that holds one run and goes on with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.corpus import plan as module
from app.corpus.part import score_part
from app.corpus.plan import MANIFEST, Plan, begin, find_files, held, make_plan, read_plan
from app.corpus.scorer import Scorer
from app.schemas import ModelIdentity
from model.errors import ConfigurationError, TextError
from tests.app.fakes import NumpyEngine, fake_model

MODEL = ModelIdentity(name="tiny", sha256="0" * 64, engine="numpy", precision="float32")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNIT", 4)


def write(folder: Path, count: int, name: str = "a.jsonl") -> Path:
    """A file of so many rows."""
    texts = [f"the harbour {number}" for number in range(count)]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder / name


def planned(folder: Path, *names: str, include_eos: bool = True) -> Plan:
    return make_plan(folder, names or ["a.jsonl"], MODEL, include_eos=include_eos)


def do(folder: Path, plan: Plan, out: Path, numbers: list[int]) -> None:
    """Score some parts."""
    model = fake_model()
    engine = NumpyEngine(len(model.vocabulary))
    for number in numbers:
        score_part(Scorer(engine, model.vocabulary, include_eos=plan.include_eos), folder, plan.parts[number], out)


def test_parts_are_ranges_of_rows_and_know_where_they_begin_and_what_they_hold(tmp_path: Path) -> None:
    lines = write(tmp_path, 10).read_bytes().splitlines(keepends=True)
    write(tmp_path, 5, "b.parquet")
    plan = planned(tmp_path, "a.jsonl", "b.parquet")
    assert [(part.file, part.first, part.rows) for part in plan.parts] == [
        ("a.jsonl", 1, 4), ("a.jsonl", 5, 4), ("a.jsonl", 9, 2), ("b.parquet", 1, 4), ("b.parquet", 5, 1),
    ]  # fmt: skip
    assert [part.offset for part in plan.parts[:3]] == [0, len(b"".join(lines[:4])), len(b"".join(lines[:8]))]
    second = hashlib.sha256(b"".join(lines[4:8])).digest()
    assert plan.parts[1].sha256 == hashlib.sha256(second).hexdigest()
    assert (plan.rows, plan.rows_per_part) == (15, 4)
    assert len({part.sha256 for part in plan.parts}) == 5


def test_parts_of_a_large_corpus_are_larger_and_not_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 3)
    write(tmp_path, 37)
    plan = planned(tmp_path)
    assert plan.rows_per_part == 16
    assert [(part.first, part.rows) for part in plan.parts] == [(1, 16), (17, 16), (33, 5)]


def test_a_folder_is_its_files_in_order_and_what_else_is_in_it_is_told(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "._b.jsonl", "_c.parquet"):
        write(tmp_path, 1, name)
    for name in ("notes.txt", "c.jsonl.gz", "_SUCCESS", ".crc"):
        (tmp_path / name).write_text("no corpus")
    (tmp_path / "d.parquet").mkdir()
    others = ["c.jsonl.gz", "d.parquet", "notes.txt"]
    assert find_files(tmp_path) == (tmp_path, ["a.parquet", "b.jsonl"], others)
    assert find_files(tmp_path / "b.jsonl") == (tmp_path, ["b.jsonl"], [])
    with pytest.raises(TextError, match=r"neither \.jsonl nor \.parquet"):
        find_files(tmp_path / "notes.txt")
    with pytest.raises(TextError, match=r"none\.jsonl does not exist"):
        find_files(tmp_path / "none.jsonl")
    with pytest.raises(TextError, match=r"holds no \.jsonl and no \.parquet files"):
        find_files(tmp_path / "d.parquet")
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(TextError, match="holds no row"):
        planned(tmp_path, "none.jsonl")


def test_what_is_missing_is_done_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, 10)
    out, plan = tmp_path / "out", planned(tmp_path)
    assert begin(out, plan) == plan.parts
    assert read_plan(out) == plan
    do(tmp_path, plan, out, [1])
    # What a killed worker leaves.
    for name in (".part-000000.parquet.1a2b.partial", ".part-000002.parquet.tries"):
        (out / name).write_bytes(b"half")
    assert begin(out, plan) == [plan.parts[0], plan.parts[2]]
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "part-000001.parquet"]


def test_the_folder_is_read_as_one_table(tmp_path: Path) -> None:
    write(tmp_path, 10)
    out, plan = tmp_path / "out", planned(tmp_path)
    with held(out):
        do(tmp_path, plan, out, [part.number for part in begin(out, plan)])
    table = pq.read_table(out)
    assert table.column("row").to_pylist() == list(range(1, 11))
    assert set(table.column("file").to_pylist()) == {"a.jsonl"}


def test_a_row_that_is_mended_is_in_a_part_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, 10)
    whole = path.read_text()
    path.write_text(whole.replace('"the harbour 5"', "nothing"))
    out, plan = tmp_path / "out", planned(tmp_path)
    begin(out, plan)
    do(tmp_path, plan, out, [0, 2])
    path.write_text(whole)
    mended = planned(tmp_path)
    assert begin(out, mended) == [mended.parts[1]]
    assert read_plan(out) == mended


def test_a_folder_of_another_run_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 10, "b.jsonl")
    out, plan = tmp_path / "out", planned(tmp_path)
    begin(out, plan)
    do(tmp_path, plan, out, [0, 1, 2])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    model = MODEL.model_copy(update={"sha256": "1" * 64})
    others = [
        planned(tmp_path, "b.jsonl"),
        planned(tmp_path, include_eos=False),
        make_plan(tmp_path, ["a.jsonl"], MODEL, include_eos=True, oov_penalty=0.0),
        make_plan(tmp_path, ["a.jsonl"], model, include_eos=True),
    ]
    for other in others:
        with pytest.raises(ConfigurationError, match="holds another run"):
            begin(out, other)
    path = tmp_path / "a.jsonl"
    path.write_text(path.read_text().replace("harbour 9", "sea"))
    with pytest.raises(ConfigurationError, match=r"part-000002\.parquet was scored when a\.jsonl, rows 9 to 10"):
        begin(out, planned(tmp_path))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("content", ["{}", '{"format": 2}', "no JSON"])
def test_a_manifest_of_another_version_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ConfigurationError, match=r"another version|is not valid JSON"):
        read_plan(tmp_path)


def test_a_folder_of_something_else_and_a_damaged_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 10)
    with pytest.raises(ConfigurationError, match="is not empty and holds no run"):
        begin(tmp_path, planned(tmp_path))
    out, plan = tmp_path / "out", planned(tmp_path)
    begin(out, plan)
    (out / "part-000001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigurationError, match=r"part-000001\.parquet is no part of a run, or damaged"):
        begin(out, plan)


def test_only_one_process_scores_into_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with held(out), pytest.raises(ConfigurationError, match="another process scores into"), held(out):
        pass
    with held(out):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"), held(tmp_path / "file"):
        pass
