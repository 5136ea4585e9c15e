"""Commands that a page shows and no test runs: whether what they name exists.

Boundary: a block of bash in, an assertion out. `pru` is asked whether it knows the options, without being run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise

import yaml

from pru.cli import load
from tests.source import ROOT

ASSIGNMENT = re.compile(r"[A-Z_]+=")


def commands(content: str) -> Iterator[list[str]]:
    """The words of every command of a block, without what is set before it and after a pipe."""
    for line in content.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.match(words[0]):
            words = words[1:]
        if words:
            yield words


def check_commands(content: str) -> None:
    """Every command is one that is known here, and what it names exists."""
    for words in commands(content):
        match words:
            case ["pru", *arguments]:
                check_pru(arguments)
            case ["make", *arguments]:
                targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert {name for name in arguments if "=" not in name} <= set(targets), words
            case ["docker", "compose", *arguments]:
                _check_compose(arguments)
            case ["docker", "build", "-f", name, *_]:
                assert (ROOT / name).is_file(), words
            case ["docker", "push", _]:
                pass
            case ["python", "deploy/ray/train.py", *arguments]:
                check_pru(["train", *arguments[arguments.index("--") + 1 :]])
            case ["torchrun", *arguments]:
                check_pru(arguments[arguments.index("training") + 1 :])
            case ["serve", "run", file]:
                assert (ROOT / file).is_file(), words
            case ["kubectl", *arguments]:
                _check_kubectl(arguments)
            case ["export" | "kill" | "pip" | "python" | "git" | "curl" | "openssl" | "ray", *_]:
                pass
            case _:
                raise AssertionError(f"no test knows the command {' '.join(words)}")


def check_pru(arguments: list[str]) -> None:
    """The command line takes these arguments."""
    name, *rest = arguments
    command = load(name)
    if parts := getattr(command, "commands", None):
        command, name, rest = parts[rest[0]], rest[0], rest[1:]
    command.make_context(name, rest)


def _check_kubectl(arguments: list[str]) -> None:
    """What is applied from this checkout is there; what comes by a pipe is another command's."""
    for option, name in pairwise(arguments):
        if option == "-k":
            assert (ROOT / name / "kustomization.yaml").is_file(), arguments
        elif option == "-f" and name != "-":
            assert (ROOT / name).is_file(), arguments


def _check_compose(arguments: list[str]) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    rest = iter(arguments)
    for word in rest:
        if word == "--profile":
            assert next(rest) in profiles, arguments
        elif word in {"up", "down", "stop", "exec", "logs"}:
            named = [name for name in rest if not name.startswith("-")]
            assert set(named[:1] if word == "exec" else named) <= services.keys(), arguments
