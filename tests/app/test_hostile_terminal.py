"""Hostile text, files and interruptions in a terminal: figures, or one line that says what is wrong and status 2."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.served_model import ServedModel
from model.bundle import sums_of
from model.vocabulary import Vocabulary
from tests.app.bundles import export_small_bundle
from tests.app.fakes import NumpyEngine, fake_model
from tests.app.processes import ROOT, environment
from tests.app.serving import serving
from tests.app.test_hostile_requests import CONTROLS, IndifferentEngine, log_probability

SHOW = """
import sys
from app import cli, served_model
from tests.app.fakes import fake_model
served_model.open_model = lambda _: fake_model()
sys.argv = ["app", *sys.argv[1:]]
cli.main()
"""
"""`python -m app` around a small model."""


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> ServedModel:
    """The model that every command opens."""
    model = fake_model(build=IndifferentEngine)
    monkeypatch.setattr("app.served_model.open_model", lambda _: model)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    return model


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `python -m app ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["app", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failed command writes."""
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


def scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> dict[str, Any]:
    """What `score --json` says of a file of this text, and that the table can be printed too."""
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    assert run(monkeypatch, "score", file) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5
    assert run(monkeypatch, "score", file, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("small_model")
def test_a_line_of_a_megabyte_is_scored_and_so_are_ten_thousand_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    for pairs, lines in ((90_000, 1), (1, 10_000)):
        file.write_text(("the harbour " * pairs + "\n") * lines)
        assert run(monkeypatch, "score", file, "--json") == 0
        figures = json.loads(capsys.readouterr().out)
        each = pairs * (log_probability("the") + log_probability("harbour")) + log_probability("<eos>")
        assert figures["token_count"] == lines * (2 * pairs + 1)
        assert figures["log_likelihood"] == pytest.approx(lines * each, rel=1e-6)
        assert len(figures["lines"]) == lines


@pytest.mark.usefixtures("small_model")
def test_a_text_of_more_tokens_than_a_request_may_have_is_scored_since_nobody_else_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PRU_MAX_TOKENS", "10")
    assert scored(monkeypatch, capsys, tmp_path, "the sea " * 100)["token_count"] == 201


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize("character", ["a", "-", ".", "🚢", "漢", "["])
def test_a_million_characters_without_a_blank_are_one_unknown_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, character: str
) -> None:
    text = character * 1_000_000
    figures = scored(monkeypatch, capsys, tmp_path, text)
    assert (figures["token_count"], figures["oov_count"]) == (2, 1)
    assert run(monkeypatch, "predict", "--json", "--", text) == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 1


@pytest.mark.usefixtures("small_model")
def test_a_text_without_a_known_word_has_a_perplexity_but_none_without_unknown_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("Zanzibar Tanganyika")
    assert run(monkeypatch, "score", tmp_path / "text.txt", "--no-eos", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["token_count"], figures["oov_count"]) == (2, 2)
    assert figures["log_likelihood"] == pytest.approx(2 * log_probability("<unk>"), rel=1e-6)
    assert figures["perplexity_without_oov"] is None
    assert run(monkeypatch, "predict", "Zanzibar Tanganyika", "--json") == 0
    assert json.loads(capsys.readouterr().out)["token_count"] == 2


@pytest.mark.usefixtures("small_model")
def test_control_characters_and_emoji_are_scored_as_they_are_over_http(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, small_model: ServedModel
) -> None:
    text = "".join(f"the{control}harbour {control} 🚢 " for control in CONTROLS if control != "\0")
    figures = scored(monkeypatch, capsys, tmp_path, text)
    with serving(small_model) as client:
        answer = client.post("/perplexity", json={"text": text}).json()
    assert {name: figures[name] for name in answer["total"]} == answer["total"]


@pytest.mark.usefixtures("small_model")
def test_no_control_character_of_a_text_reaches_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("".join(f"the{control}sea " for control in CONTROLS if control not in "\0\n\r").encode())
    assert run(monkeypatch, "score", file) == 0
    table = capsys.readouterr().out
    assert "the" in table
    assert set(table) & set(CONTROLS) == {"\n"}


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the \0 sea", "is not text (it holds NUL bytes)"),
        ("the sea".encode("utf-16"), "is not text (it holds NUL bytes)"),
        ("the sea".encode("utf-32"), "is not text (it holds NUL bytes)"),
        (b"\x89PNG\r\n\x1a\n\x01", "is not UTF-8"),
        (b"the \xed\xa0\x80 sea", "is not UTF-8"),
        ("the caf\xe9".encode("latin-1"), "is not UTF-8"),
        ("the sea é".encode("cp037"), "is not UTF-8"),
    ],
    ids=["nul", "utf-16", "utf-32", "binary", "surrogate", "latin-1", "ebcdic"],
)
def test_what_is_not_utf_8_text_is_one_line_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes,
    message: str,
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert run(monkeypatch, "score", file) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {file} {message}")
    assert "UTF-8" in line
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(monkeypatch, "score", "-") == 2
    assert message in only_line(capsys)


@pytest.mark.usefixtures("small_model")
def test_a_standard_input_that_is_closed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What Python makes of `python -m app score - <&-`.
    monkeypatch.setattr(sys, "stdin", None)
    assert run(monkeypatch, "score", "-") == 2
    assert "standard input" in only_line(capsys)


@pytest.mark.usefixtures("small_model")
@pytest.mark.parametrize("k", [10**30, -(10**30), 101])
def test_a_count_of_predictions_beyond_all_measure_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], k: int
) -> None:
    assert run(monkeypatch, "predict", "the", "-k", k) == 2
    assert only_line(capsys).startswith("error: k: Input should be ")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_bundle(tmp_path_factory.mktemp("small"))


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields), encoding="utf-8")


ANSWERING = {"predict": ["predict", "the"], "score": ["score", __file__]}
COMMANDS = pytest.mark.parametrize(
    "arguments", [[], ["serve"], *ANSWERING.values()], ids=["no command", "serve", *ANSWERING]
)


@COMMANDS
@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_bundle_of_another_version_is_one_line_that_says_which(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    version: object,
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    change(other / "manifest.json", format_version=version)
    monkeypatch.setenv("PRU_BUNDLE", str(other))
    assert run(monkeypatch, *arguments) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {other / 'manifest.json'} has format version {version}, this program reads 1; ")
    assert "export the bundle again or use the program version that wrote it" in line


@COMMANDS
def test_a_bundle_whose_vocabulary_is_of_another_version_is_one_line(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    change(other / "tokenizer.json", version=2)
    sums = {name: entry.model_dump() for name, entry in sums_of(other).items()}
    change(other / "manifest.json", files=sums)
    monkeypatch.setenv("PRU_BUNDLE", str(other))
    assert run(monkeypatch, *arguments) == 2
    line = only_line(capsys)
    assert line.startswith(f"error: {other / 'tokenizer.json'} has version 2, not 1; ")
    assert "export the bundle again" in line


@COMMANDS
def test_a_checkpoint_in_the_place_of_a_bundle_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    checkpoint = bundle.parent / "checkpoint"
    monkeypatch.setenv("PRU_BUNDLE", str(checkpoint))
    assert run(monkeypatch, *arguments) == 2
    missing = f"error: {checkpoint / 'manifest.json'} is missing; give a folder that `python -m export` wrote"
    assert only_line(capsys) == missing


@pytest.mark.parametrize("arguments", ANSWERING.values(), ids=ANSWERING)
@pytest.mark.parametrize("moment", ["opening", "building", "tokenising", "reading"])
def test_ctrl_c_at_any_stage_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], moment: str
) -> None:
    def press(*_: Any) -> Any:
        # To the process, as a terminal sends it: a signal raised in the engine's thread does not wake the main one.
        os.kill(os.getpid(), signal.SIGINT)

    has_text = threading.Event()
    tokenise = Vocabulary.tokenise

    def tokenise_and_note(*positional: Any, **options: Any) -> Any:
        has_text.set()
        if moment == "tokenising":
            press()
        return tokenise(*positional, **options)

    def build(size: int) -> NumpyEngine:
        def read() -> None:
            if moment == "reading" and has_text.is_set():
                press()
                time.sleep(0.1)

        if moment == "building":
            press()
        return NumpyEngine(size, before=read)

    opened = press if moment == "opening" else lambda _: fake_model(build=build)
    monkeypatch.setattr("app.served_model.open_model", opened)
    monkeypatch.setattr(Vocabulary, "tokenise", tokenise_and_note)
    assert run(monkeypatch, *arguments) == 2
    assert "interrupted" in only_line(capsys)


def shown(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """How a process with a small model ends, and what it prints."""
    return subprocess.run(
        [sys.executable, "-c", SHOW, *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **{"env": environment(), "stdout": subprocess.PIPE, **options},
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_that_cannot_show_a_character_is_shown_another(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the 🚢 harbour é 漢\n")
    done = shown(
        "score", str(tmp_path / "text.txt"), env=environment() | {"PYTHONIOENCODING": encoding}, encoding=encoding
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "harbour" in done.stdout


@pytest.mark.parametrize("arguments", [["predict", "the"], ["predict", "the", "--json"], ["score", __file__, "--json"]])
def test_a_disk_that_is_full_of_the_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = shown(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_reader_that_leaves_ends_the_output_without_a_complaint(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the sea\n" * 1_000)
    with subprocess.Popen(
        [sys.executable, "-c", SHOW, "score", str(tmp_path / "text.txt"), "--json"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in {0, 1, 2, 141}
