"""The command `pru`: what it lists, loads, completes, and says where something is missing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from pru.cli import COMMANDS, load
from tests.app.on_ray.nodes import need_ray
from tests.commands import only_line
from tests.pru.commands import examples, leaves, run, run_without
from tests.source import ROOT
from training.presets import PRESETS

HEAVY = "fastapi,matplotlib,onnxruntime,numpy,torch,uvicorn"


def completed(*words: str, refused: str = HEAVY) -> list[str]:
    """What bash is told to offer for the last of these words."""
    done = run_without(
        refused, _PRU_COMPLETE="complete_bash", COMP_WORDS=shlex.join(["pru", *words[:-1]]) + f" {words[-1]}",
        COMP_CWORD=str(len(words)),
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.split()


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_command_and_loads_none(arguments: list[str]) -> None:
    done = run_without(f"{HEAVY},app,training,export,pydantic_settings", *arguments)
    assert done.stderr == ""
    for name, command in COMMANDS.items():
        assert f" {name} " in done.stdout
        assert command.help in " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_shows_the_first_line_of_a_commands_own_help(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert COMMANDS[name].help == command.help.split("\n\n")[0].strip()


@pytest.mark.parametrize("name", sorted(leaves().keys() - {"serve"}))
def test_every_command_that_gives_a_result_gives_it_to_programs_too(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in leaves()[name].params)


def test_predict_and_score_need_neither_torch_nor_fastapi(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("It was raining.\n")
    refused = "fastapi,matplotlib,torch,training,export,uvicorn"
    predicted = run_without(refused, "predict", "The film was released in the United", "--json", "-k", "1")
    assert predicted.stderr == ""
    assert json.loads(predicted.stdout)["predictions"][0]["word"] == "States"
    scored = run_without(refused, "score", str(tmp_path / "text.txt"))
    assert [line.split("\t")[2] for line in scored.stdout.splitlines()] == ["word", "It", "was", "raining."]


@pytest.mark.parametrize(
    ("packages", "arguments", "missing", "extra"),
    [
        ("torch", ["train", "--data", "x", "--out", "y"], "torch", "cpu,train"),
        ("torch", ["presets"], "torch", "cpu,train"),
        ("training", ["evaluate"], "training", "cpu,train"),
        ("onnx", ["export", "--help"], "onnx", "cpu,train"),
    ],
)
def test_a_package_that_is_not_installed_is_one_line_that_names_the_extra(
    packages: str, arguments: list[str], missing: str, extra: str
) -> None:
    done = run_without(packages, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    expected = (
        f"error: pru {arguments[0]} needs {missing}, which is not installed; pip install '.[{extra}]' brings it\n"
    )
    assert done.stderr == expected


def test_a_fault_of_our_own_is_not_taken_for_a_missing_package() -> None:
    broken = "import sys; sys.modules['training.presets'] = None; import pru.cli; pru.cli.load('presets')"
    done = subprocess.run([sys.executable, "-c", broken], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")


@pytest.mark.parametrize("arguments", [["fly"], ["--fly"], ["predict"], ["predict", "a", "--fly"], ["score"]])
def test_a_wrong_command_is_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert capsys.readouterr().out == ""


def test_a_command_that_is_misspelt_is_shown_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evalute") == 2
    assert "Did you mean 'evaluate'" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "a\nb", "[red]x[/red]", "[/x]", "\udcff"])
def test_no_argument_reaches_the_terminal_as_a_command_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    for arguments in ([text], ["score", text], ["predict", "the", "--bundle", text], ["bench", "--url", text]):
        assert run(monkeypatch, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert not set(printed.err) & {"\x1b", "\x9b"}


@pytest.mark.parametrize(
    ("option", "value", "variable"),
    [("--port", "http", "PRU_PORT"), ("--workers", "0", "PRU_WORKERS"), ("--log-level", "loud", "PRU_LOG_LEVEL")],
)
def test_an_option_of_serve_goes_before_its_variable_and_is_named_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str, variable: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(monkeypatch, "serve") == 2
    assert only_line(capsys).startswith(f"error: {variable}: Input should be")
    monkeypatch.delenv(variable)
    assert run(monkeypatch, "serve", option, value) == 2
    assert only_line(capsys).startswith(f"error: {option}: Input should be")


def test_options_of_serve_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from app import cli

    served: list[Settings] = []
    monkeypatch.setattr(cli, "_serve", served.append)
    monkeypatch.setenv("PRU_PORT", "not a number")
    monkeypatch.setenv("PRU_HOST", "::1")
    assert run(monkeypatch, "serve", "--port", "9000", "--bundle", "there", "--engine", "onnx", "--threads", "3") == 0
    [settings] = served
    chosen = (settings.port, settings.host, settings.bundle, settings.engine, settings.threads)
    assert chosen == (9000, "::1", Path("there"), "onnx", 3)


def test_files_of_models_and_of_keys_are_options_of_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from app import cli

    served: list[Settings] = []
    monkeypatch.setattr(cli, "_serve", served.append)
    monkeypatch.setenv("PRU_MODELS", "there.toml")
    monkeypatch.setenv("PRU_KEYS_FILE", "/nowhere")
    assert run(monkeypatch, "serve", "--keys-file", "keys.toml") == 0
    assert run(monkeypatch, "serve", "--models", "here.toml") == 0
    assert [(it.models, it.keys_file) for it in served] == [
        (Path("there.toml"), Path("keys.toml")),
        (Path("here.toml"), Path("/nowhere")),
    ]


@pytest.mark.parametrize("command", [["serve"], ["predict", "the"], ["engines"]])
def test_a_bundle_that_is_named_goes_before_a_file_of_models_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    monkeypatch.setenv("PRU_MODELS", str(tmp_path / "none.toml"))
    assert run(monkeypatch, *command) == 2
    assert "none.toml cannot be read" in only_line(capsys)
    assert run(monkeypatch, *command, "--bundle", tmp_path / "missing") == 2
    assert "missing" in only_line(capsys)


def test_a_bundle_and_a_file_of_models_are_not_both_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "serve", "--bundle", "here", "--models", "there") == 2
    assert only_line(capsys) == "error: --bundle and --models both say what is served; leave one of them out"


def test_bash_completes_names_of_commands_and_loads_none() -> None:
    everything = f"{HEAVY},app,training,export"
    assert completed("e", refused=everything) == ["engines", "evaluate", "export"]
    assert completed("", refused=everything) == list(COMMANDS)


def test_bash_completes_options_and_values() -> None:
    assert completed("score", "--e") == ["--each-line", "--eos", "--entropy"]
    assert completed("serve", "--engine", "onnx", refused="torch,fastapi") == ["onnx-cuda", "onnx"]
    assert "--preset" in completed("train", "--pre", refused="fastapi")
    expected = [name for name in PRESETS if name.startswith("awd-pru-g4")]
    assert len(expected) > 1
    assert completed("train", "--preset", "awd-pru-g4", refused="fastapi") == expected


def test_completion_says_nothing_of_a_package_that_is_not_installed() -> None:
    assert completed("train", "--pre", refused="torch") == []


def test_the_script_for_bash_calls_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert run(monkeypatch, "--show-completion", "bash") == 0
    script = capfd.readouterr().out
    assert "_PRU_COMPLETE=complete_bash" in script
    assert script.rstrip().endswith("complete -o default -F _pru_completion pru")
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "example"), examples())
def test_an_example_is_a_command_that_its_own_parser_takes(name: str, example: str) -> None:
    command = example.rpartition("| ")[2].partition(" > ")[0]
    assert f"{command} ".startswith(f"pru {name} ")
    assert len(example) <= 78, "a line of a terminal of 80 columns"
    [words] = [it.split() for it in leaves() if f"{command} ".startswith(f"pru {it} ")]
    parsed = leaves()[" ".join(words)].make_context(words[-1], shlex.split(command)[1 + len(words) :])
    assert parsed.args == []


RUNNABLE = ("predict", "score", "engines", "presets")


@pytest.mark.slow
@pytest.mark.parametrize("example", [example for name, example in examples() if name in RUNNABLE])
def test_an_example_runs_as_it_stands(example: str, tmp_path: Path) -> None:
    if "--ray" in example:
        need_ray()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pru").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pru "$@"\n')
    (tmp_path / "bin" / "pru").chmod(0o755)
    for name in ("story.txt", "sentences.txt", "candidates.txt"):
        (tmp_path / name).write_text("It was raining.\nWe left.\n")
    (tmp_path / "corpus.jsonl").write_text('{"text": "It was raining."}\n{"text": "We left."}\n')
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bundle").symlink_to(ROOT / "bundles" / "wikitext-2")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or any(file.suffix in {".parquet", ".tsv"} for file in tmp_path.rglob("*"))


def test_help_imports_nothing_of_any_command() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pru", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    ours = {"app", "export", "model", "training"}
    assert loaded & {*ours, "fastapi", "numpy", "onnxruntime", "pydantic_settings", "torch"} == {"model"}
