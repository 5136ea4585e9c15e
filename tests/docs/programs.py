"""The blocks of one page as programs: those of a language, one after the other, are one program that runs once.

Boundary: a page's source in, what each block printed out. So a block may use what the blocks before it have made.
Where a page serves a bundle itself (`pru serve`), the blocks of bash after it ask that server.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.commands import required
from tests.examples import ADDRESS, Block, blocks_of, free_port
from tests.source import ROOT

OUTPUT = ("json", "text", "tsv")
"""Languages of blocks that show what the block before them prints."""
MARK = "--- block at line "
ECHO = {
    "bash": "echo; echo '{}'",
    "python": "print('\\n{}', flush=True)",
    "javascript": "console.log('\\n{}');",
}
"""What marks the output of a block, by the languages that are run: a line of its own, whatever was printed before."""
SERVES = re.compile(r"^[^#\n]*\bpru serve\b", re.MULTILINE)
PATIENCE = 300
"""Seconds for all blocks of one language of a page."""
PRELUDE = """
pru() {
    if [[ "${1-}" != serve ]]; then command pru "$@"; return; fi
    stop
    command pru "$@" >"$LOG" &
    SERVER=$!
    for _ in {1..300}; do
        if curl -sf "http://127.0.0.1:$PRU_PORT/health/ready" >/dev/null; then return; fi
        if ! kill -0 "$SERVER" 2>/dev/null; then cat "$LOG"; wait "$SERVER"; return; fi
        sleep 0.1
    done
    return 1
}
stop() {
    if kill "${SERVER-}" 2>/dev/null; then wait "$SERVER" || true; fi
    SERVER=
}
trap stop EXIT
"""
"""`pru serve` is in the background and ready; another one, or the end, ends it."""
PRU = f"""
case $1 in
    train) set -- "$@" --set model.hidden_size=16 --set model.embedding_size=8 --epochs 1 ;;
    export | validate) set -- "$@" --tokens 300 ;;
esac
exec {sys.executable} -m pru "$@"
"""
"""The command, with a small model, one epoch and a short text where the real ones take minutes."""


@dataclass(frozen=True)
class Shown:
    """A block that shows output, and the block it is of."""

    output: Block
    of: Block


def runnable(blocks: Sequence[Block]) -> list[Block]:
    """Blocks that are run."""
    return [block for block in blocks if block.language in ECHO and block.reason is None]


def shown(blocks: Sequence[Block]) -> list[Shown]:
    """Every block of output with what it is the output of.

    That is the block before it; below a group of tabs, where the output is not in one of them, that of the first tab.
    """
    found: list[Shown] = []
    before: list[Block] = []
    for block in blocks:
        if block.language not in OUTPUT:
            before.append(block)
        elif block.reason is None:
            assert before, f"line {block.line} shows the output of no block"
            tabs = [other for other in before if other.indent and other.prose == block.prose]
            found.append(Shown(block, tabs[0] if tabs and not block.indent else before[-1]))
    return found


def run_page(page: Path, folder: Path, server: str) -> dict[int, str]:
    """Run a page's programs in `folder`; return what each block printed, by its line. All must end well."""
    blocks = runnable(blocks_of(page))
    printed: dict[int, str] = {}
    for language in ECHO:
        own = [block for block in blocks if block.language == language]
        if own:
            printed |= _run(language, own, folder, server)
    return printed


def _run(language: str, blocks: Sequence[Block], folder: Path, server: str) -> dict[int, str]:
    port = free_port()
    place, parts = server, []
    for block in blocks:
        if language == "bash" and SERVES.search(block.content):
            place = f"127.0.0.1:{port}"
        content = block.content.replace(ADDRESS, place)
        parts.append(f"{ECHO[language].format(MARK + str(block.line))}\n{content}")
    program = "\n".join(parts)
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", PRELUDE + program],
        "python": [sys.executable, "-c", program],
        "javascript": [*_node(), "--input-type=module", "--eval", program],
    }[language]
    # A session of its own, so that nothing it started outlives it.
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder) | {"PRU_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, said = process.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{printed[-3000:]}\n{said[-3000:]}"
    outputs = re.split(rf"^{MARK}(\d+)\n", printed, flags=re.MULTILINE)
    return {int(line): text for line, text in zip(outputs[1::2], outputs[2::2], strict=True)}


def environment(folder: Path) -> dict[str, str]:
    """Where `pru` and `python` are this project's, and sessions are kept in the page's folder."""
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    for name, content in {"pru": PRU, "python": f'exec {sys.executable} "$@"\n'}.items():
        script = programs / name
        script.write_text(f"#!/bin/sh\n{content}")
        script.chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "COLUMNS": "100",
        "LOG": str(folder.parent / "server.log"),
        "PRU_SESSION_STORE": f"sqlite:///{folder.parent}/sessions.db",
    }


def _node() -> list[str]:
    """Node, with the WebSocket that browsers have: before its version 22 that has to be asked for."""
    node = required(shutil.which("node"), "nodejs")
    ask = "process.exit(typeof WebSocket === 'undefined' ? 1 : 0)"
    has_websocket = subprocess.run([node, "--eval", ask], check=False).returncode == 0
    return [node] if has_websocket else [node, "--no-warnings", "--experimental-websocket"]
