"""The analyses as a person asks for them."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from model.checkpoint import load_checkpoint, save_checkpoint
from model.conventions import Convention
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary
from tests.commands import exit_status
from tests.model.faults import contents, full_disk
from tests.training.conftest import SENTENCES, config
from training.analysis.attribution import attribute
from training.analysis.coverage import coverage
from training.analysis.entropy import next_word_entropies
from training.analysis.pictures import _Page
from training.cli import main

TAGGED = "the/DT cat/NN sat/VBD on/IN mat/NN and/CC looked/VBD at/IN dog/NN quickly/RB"
PICTURES = {"entropy.png", "saliency.png", "gradient_coverage.png"}
TABLES = {
    "entropy.csv",
    "entropy_means.csv",
    "saliency.csv",
    "saliency_predictions.csv",
    "gradient_coverage.csv",
    "gradients.csv",
}


def save(folder: Path, seed: int, sentences: Sequence[str] = SENTENCES, **changes: object) -> Path:
    vocabulary = Vocabulary.from_lines(sentences, Convention.WIKITEXT)
    torch.manual_seed(seed)
    model = LanguageModel(config(vocabulary, **changes))
    with torch.no_grad():
        model.embedding.weight.mul_(10)
    save_checkpoint(folder, model, vocabulary, {})
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A PRU, and an LSTM whose name looks like a formula."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [save(folder / "PRU", 1), save(folder / "_$LSTM$", 2, groups=1, levels=1, residual=False)]


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    path = tmp_path / "tagged.txt"
    path.write_text(TAGGED)
    return path


def analysis(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m training analyze` with these arguments."""
    return exit_status(monkeypatch, main, "analyze", "--device", "cpu", *arguments)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_analysis_leaves_a_picture_and_a_table_of_what_its_functions_give(
    checkpoints: list[Path],
    corpus_folder: Path,
    tags: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new" / "out"
    common = ("--data", corpus_folder, "--out", out)
    assert analysis(monkeypatch, *checkpoints, *common, "--tags", tags, "--contexts", 100) == 0
    printed = capsys.readouterr().out
    variance = {"embedding_variance.csv", "embedding_variance.png"}
    assert {path.name for path in out.iterdir()} == PICTURES | TABLES | variance

    means, covered = {}, {}
    for folder in checkpoints:
        model, vocabulary, _ = load_checkpoint(folder)
        ids = vocabulary.encode((corpus_folder / "valid.txt").read_text())
        entropies = next_word_entropies(model, ids[:100], vocabulary.eos_id)
        means[folder.name] = f"{entropies.mean():.6g}"
        first = attribute(model, vocabulary.tokenise(SENTENCES[0]).ids.tolist(), vocabulary.eos_id)
        covered[folder.name] = f"{coverage(first.gradients):.6g}"
        said = f"{folder.name} ({folder}): mean entropy {entropies.mean():.2f} over 100 contexts, gradient coverage"
        assert said in printed
    assert rows(out / "entropy_means.csv")[1:] == [[name, "100", mean] for name, mean in means.items()]
    header, *bins = rows(out / "entropy.csv")
    assert header == ["from", "to", *means]
    assert [sum(int(row[column]) for row in bins) for column in (2, 3)] == [100, 100]
    assert {row[0]: row[2] for row in rows(out / "gradient_coverage.csv")[1:]} == covered

    salient = rows(out / "saliency.csv")[1:]
    assert [row[5] for row in salient if row[2] == "1"] == " ".join(SENTENCES * 2).split()
    assert len(salient) == 5 * len(" ".join(SENTENCES * 2).split())
    predicted = {(row[0], row[1], row[2]): row[3] for row in salient}
    assert [[*key, word] for key, word in predicted.items()] == [
        row[:4] for row in rows(out / "saliency_predictions.csv")[1:]
    ]
    assert [row[:2] for row in rows(out / "saliency_predictions.csv")[1:]] == [
        [name, str(sequence)] for name in means for sequence in range(1, 6) for _ in range(5)
    ]
    assert len(rows(out / "gradients.csv")) == 1 + 2 * len(SENTENCES[0].split()) * 8
    levels = {"PRU": "12", "_$LSTM$": "1"}
    counted = {"nouns": "3", "verbs": "2", "determiners": "1", "prepositions": "2", "conjunctions": "1"}
    assert [row[:4] for row in rows(out / "embedding_variance.csv")[1:]] == [
        [name, category, level, count]
        for name in means
        for category, count in counted.items()
        for level in levels[name]
    ]
    for name in PICTURES | {"embedding_variance.png"}:
        picture = imread(out / name)
        assert picture.shape[1] == 1800
        # Drawn over from top to bottom: an empty page is white, and so is one whose contents lie beside it.
        inked = np.flatnonzero((picture[..., :3] < 0.5).any(axis=(1, 2)))
        assert inked[0] < 0.15 * len(picture)
        assert inked[-1] > 0.85 * len(picture)


def test_a_model_given_twice_is_numbered_and_without_tags_no_variance_is_left(
    checkpoints: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, text = tmp_path / "out", tmp_path / "text.txt"
    text.write_text("the $ cat 猫\n\nthe dog sat on")
    pair = (checkpoints[0], checkpoints[0])
    assert analysis(monkeypatch, *pair, "--data", corpus_folder, "--out", out, "--text", text) == 0
    captured = capsys.readouterr()
    assert "without --tags the variance of embeddings by part of speech is left out" in captured.out
    assert {path.name for path in out.iterdir()} == PICTURES | TABLES
    header, *bins = rows(out / "entropy.csv")
    assert header[2:] == ["PRU", "PRU (2)"]
    assert all(row[2] == row[3] for row in bins)
    valid = (corpus_folder / "valid.txt").read_text()
    assert sum(int(row[2]) for row in bins) == len(valid.split()) + valid.count("\n")
    first = [row for row in rows(out / "saliency.csv") if row[0] == "PRU" and row[2] == "1"]
    assert [[row[1], *row[4:6]] for row in first] == [
        ["1", "1", "the"],
        ["1", "2", "<unk>"],
        ["1", "3", "cat"],
        ["1", "4", "<unk>"],
        ["2", "1", "the"],
        ["2", "2", "dog"],
        ["2", "3", "sat"],
        ["2", "4", "on"],
    ]


def test_words_that_begin_formulas_or_have_no_letters_in_the_font_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["$ \\frac $ 猫 { _x_ ^ costs $5 a b c d e " + "w" * 200]
    checkpoint = save(tmp_path / "model", 1, lines)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid"):
        (corpus / f"{split}.txt").write_text("\n".join(lines * 3) + "\n")
    assert analysis(monkeypatch, checkpoint, "--data", corpus, "--out", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} > PICTURES


def test_a_picture_of_very_many_lines_is_drawn_with_fewer_dots(tmp_path: Path) -> None:
    page = _Page()
    page.depth = 400.0
    (tmp_path / "deep.png").write_bytes(page.png())
    assert imread(tmp_path / "deep.png").shape[:2] == (20_000, 450)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("--text", "", "holds 0 sequences; give 1 to 10"),
        ("--text", " \n\n", "holds 0 sequences; give 1 to 10"),
        ("--text", "the cat\n" * 11, "holds 11 sequences; give 1 to 10"),
        ("--text", "the cat\n" + "the " * 61, "line 2: 61 words; a sequence has 1 to 60"),
        ("--tags", "the/DT\ncat", "line 2: 'cat' is not word/TAG"),
        ("--tags", "zebra/NN", "occurs in corpus"),
    ],
)
def test_files_that_cannot_be_used_end_in_one_line_and_leave_nothing(
    checkpoints: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    said: str,
) -> None:
    file, out = tmp_path / "file.txt", tmp_path / "out"
    file.write_text(text)
    assert analysis(monkeypatch, checkpoints[0], "--data", corpus_folder, "--out", out, name, file) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert said in error
    assert not out.exists()


def test_models_that_cannot_be_compared_are_refused(
    checkpoints: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ("--data", corpus_folder, "--out", tmp_path / "out")
    other = save(tmp_path / "other", 1, SENTENCES[:2])
    assert analysis(monkeypatch, checkpoints[0], other, *common) == 2
    assert f"{other} and {checkpoints[0]} have different vocabularies" in capsys.readouterr().err
    assert analysis(monkeypatch, *checkpoints * 4, *common) == 2
    assert "8 checkpoints are too many to tell apart; give at most 7" in capsys.readouterr().err
    assert analysis(monkeypatch, tmp_path / "none", *common) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert analysis(monkeypatch, *common) == 2
    assert "Missing argument 'CHECKPOINT'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_validation_text_without_a_line_of_the_right_length_asks_for_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(tmp_path / "model", 1, [*SENTENCES, "= ="])
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid"):
        (corpus / f"{split}.txt").write_text("= the cat = = = = = =\n" + "the " * 26 + "\n")
    assert analysis(monkeypatch, checkpoint, "--data", corpus, "--out", tmp_path / "out") == 2
    assert "validation text has 8 to 25 words; give sequences by --text" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    checkpoints: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("entropies were computed")

    monkeypatch.setattr("training.analyze_command.next_word_entropies", never)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert analysis(monkeypatch, checkpoints[0], "--data", corpus_folder, "--out", out) == 2
        error = capsys.readouterr().err.strip()
        assert f"{out} cannot be written" in error
        assert "give another folder by --out" in error


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_part_of_the_results(
    checkpoints: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with full_disk(out, 20) as moments:
        assert analysis(monkeypatch, checkpoints[0], "--data", corpus_folder, "--out", out) == 2
    assert moments.struck
    error = capsys.readouterr().err.strip()
    assert error == f"error: {out} cannot be written: No space left on device; mend that, or give another --out folder"
    assert contents(out) == {}


def test_no_other_command_waits_for_the_drawing_library() -> None:
    code = "import sys, training.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_model_is_analysed_where_it_is_asked_for(
    checkpoints: list[Path], corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[object] = []
    monkeypatch.setattr("training.analyze_command.find_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(LanguageModel, "to", lambda _, place: moved.append(place))
    assert analysis(monkeypatch, *checkpoints, "--data", corpus_folder, "--out", tmp_path / "out") == 0
    assert moved == [torch.device("cuda")] * 2


@pytest.mark.gpu
def test_a_gpu_gives_the_analyses_of_the_cpu(
    checkpoints: list[Path], corpus_folder: Path, tags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {}
    for device in ("cpu", "cuda"):
        options = ("--data", corpus_folder, "--tags", tags, "--out", tmp_path / device, "--device", device)
        assert analysis(monkeypatch, *checkpoints, *options) == 0
        names = ("entropy_means.csv", "embedding_variance.csv", "saliency_predictions.csv")
        tables[device] = [float(row[-1]) for name in names for row in rows(tmp_path / device / name)[1:]]
    assert tables["cuda"] == pytest.approx(tables["cpu"], rel=1e-2)
