"""The figures of texts scored in bulk are those of `POST /perplexity`, whatever they are scored beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.corpus import plan as planning
from app.corpus import scorer as module
from app.corpus.part import read_summary, score_part
from app.corpus.plan import Part, Plan, make_plan
from app.corpus.scorer import Scorer
from app.schemas import ModelIdentity
from app.scoring import Floats, Ids, total
from app.served_model import Source, open_source
from model.errors import EngineError, TextError
from tests.app.fakes import CORPUS, NumpyEngine, fake_model, small_vocabulary
from tests.app.serving import serving
from tests.source import ROOT

TEXTS = ["", "the", *(line for line in CORPUS if line.strip()), "the sea\nthe harbour\n", "Zanzibar", "the sea " * 40]
MODEL = ModelIdentity(name="tiny", sha256="0" * 64, engine="numpy", precision="float32")


def planned(folder: Path, texts: list[str], include_eos: bool = True) -> Plan:
    """A plan of one part for some texts."""
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return make_plan(folder, ["a.jsonl"], MODEL, include_eos=include_eos)


def score(folder: Path, part: Part, include_eos: bool = True) -> list[dict[str, object]]:
    """The rows of a part that a small model scores."""
    model = fake_model()
    scorer = Scorer(NumpyEngine(len(model.vocabulary)), model.vocabulary, include_eos=include_eos)
    score_part(scorer, folder, part, folder)
    found: list[dict[str, object]] = pq.read_table(folder / part.name).to_pylist()
    return found


@pytest.mark.parametrize("include_eos", [True, False])
@pytest.mark.parametrize(("rows", "steps"), [(32, 256), (3, 5), (1, 1)])
def test_a_row_has_the_figures_that_the_service_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, include_eos: bool, rows: int, steps: int
) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "STEPS", steps)
    [part] = planned(tmp_path, TEXTS, include_eos).parts
    found = score(tmp_path, part, include_eos)
    with serving() as client:
        answer = client.post("/perplexity", json={"texts": TEXTS, "include_eos": include_eos}).json()
    assert [row.pop("row") for row in found] == list(range(1, len(TEXTS) + 1))
    assert {row.pop("file") for row in found} == {"a.jsonl"}
    assert len(found) == len(answer["results"])
    for row, result in zip(found, answer["results"], strict=True):
        assert row == pytest.approx(result)


def test_with_a_penalty_a_row_has_the_services_score_too(tmp_path: Path) -> None:
    [part] = planned(tmp_path, TEXTS).parts
    model = fake_model()
    scorer = Scorer(NumpyEngine(len(model.vocabulary)), model.vocabulary, include_eos=True)
    without = score_part(scorer, tmp_path, part, tmp_path)
    assert score_part(scorer, tmp_path, part, tmp_path, 2.5) == without == read_summary(tmp_path / part.name)
    with serving() as client:
        answer = client.post("/perplexity", json={"texts": TEXTS, "oov_penalty": 2.5}).json()
    table = pq.read_table(tmp_path / part.name)
    assert table.column("score").to_pylist() == pytest.approx([result["score"] for result in answer["results"]])
    assert not table.schema.field("score").nullable
    assert sum(table.column("oov_count").to_pylist()) == 1


def test_the_file_says_what_was_scored_and_its_sums(tmp_path: Path) -> None:
    [part] = planned(tmp_path, TEXTS).parts
    found = score(tmp_path, part)
    summary = read_summary(tmp_path / part.name)
    assert (summary.sha256, summary.rows) == (part.sha256, len(TEXTS))
    assert summary.likelihood.token_count == sum(int(str(row["token_count"])) for row in found)
    assert summary.likelihood.log_likelihood == pytest.approx(sum(float(str(row["log_likelihood"])) for row in found))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_bundled_models_figures_do_not_depend_on_what_they_are_scored_beside(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    served = open_source(Source(None, ROOT / "bundles" / "wikitext-2", "onnx", "int8", 1))
    scorer = Scorer(served.build_engine(), served.vocabulary, include_eos=True)
    alone = [next(scorer.score([text])) for text in TEXTS]
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    assert list(scorer.score(TEXTS)) == alone
    monkeypatch.setattr(module, "BLOCK_CHARACTERS", 20)
    assert list(scorer.score(iter(TEXTS))) == alone
    assert total(alone).token_count == sum(one.token_count for one in alone)


def test_texts_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    model = fake_model()
    scorer = Scorer(NumpyEngine(len(model.vocabulary)), model.vocabulary, include_eos=True)
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield "the sea"

    found = scorer.score(endless())  # type: ignore[arg-type]
    for _ in range(25):
        next(found)
    assert taken == 30


def test_the_same_texts_are_the_same_bytes(tmp_path: Path) -> None:
    [part] = planned(tmp_path, TEXTS).parts
    score(tmp_path, part)
    first = (tmp_path / part.name).read_bytes()
    (tmp_path / part.name).unlink()
    score(tmp_path, part)
    assert (tmp_path / part.name).read_bytes() == first


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("change", ["another text", "one row fewer", "one row more before", "a row that is malformed"])
def test_rows_that_have_changed_since_the_plan_are_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: str
) -> None:
    monkeypatch.setattr(planning, "UNIT", 4)
    file = tmp_path / name

    def write(texts: list[str | None]) -> None:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        table = pa.table({"text": texts})
        file.write_text(lines) if name == "a.jsonl" else pq.write_table(table, file)

    texts: list[str | None] = [f"the sea {number}" for number in range(8)]
    write(texts)
    first, second = make_plan(tmp_path, [name], MODEL, include_eos=True).parts
    changed = {
        "another text": [*texts[:6], "the film", *texts[7:]],
        "one row fewer": texts[:7],
        "one row more before": ["the first", *texts],
        "a row that is malformed": [*texts[:6], None, *texts[7:]],
    }
    write(changed[change])
    with pytest.raises(TextError) as raised:
        score(tmp_path, second)
    assert str(raised.value) == (
        f"{file}, rows 5 to 8, have changed since the command began; run it again when nobody writes to the file"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if change != "one row more before":
        assert [row["row"] for row in score(tmp_path, first)] == [1, 2, 3, 4]


def test_an_engine_that_computes_nan_writes_nothing(tmp_path: Path) -> None:
    class Broken(NumpyEngine):
        def score(self, hidden: Floats, targets: Ids) -> tuple[Floats, Ids]:
            values, ranks = super().score(hidden, targets)
            return np.full_like(values, np.nan), ranks

    vocabulary = small_vocabulary()
    [part] = planned(tmp_path, TEXTS).parts
    with pytest.raises(EngineError, match="NaN or infinity"):
        score_part(Scorer(Broken(len(vocabulary)), vocabulary, include_eos=True), tmp_path, part, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
