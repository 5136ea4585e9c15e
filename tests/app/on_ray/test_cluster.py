"""A cluster of this machine alone: reached from it alone, with a secret, and gone when it is over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.app.on_ray.nodes import need_ray
from tests.source import ROOT

PROGRAM = """
import json, os
from pathlib import Path
from app.on_ray.cluster import cluster

def sockets(table):
    # Local address, state and inode; 0A is a socket that listens.
    rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
    return {row[9]: row[1].rpartition(":")[0] for row in rows if row[3] == "0A"}

def inodes(process):
    for handle in (process / "fd").iterdir():
        try:
            target = os.readlink(handle)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]

def ours():
    token = os.environ["RAY_AUTH_TOKEN"].encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token in (process / "environ").read_bytes():
                yield process
        except OSError:
            pass

with cluster() as cores:
    listening = sockets("/proc/net/tcp") | sockets("/proc/net/tcp6")
    found = [listening[inode] for process in ours() for inode in inodes(process) if inode in listening]
    print(json.dumps({"cores": cores, "addresses": found, "reports": os.environ["RAY_USAGE_STATS_ENABLED"],
                      "mode": os.environ["RAY_AUTH_MODE"], "token": len(os.environ["RAY_AUTH_TOKEN"])}))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel's tables write it, alone and within IPv6."""


@pytest.mark.slow
def test_a_cluster_of_this_machine_is_reached_from_it_alone_and_reports_nothing(tmp_path: Path) -> None:
    need_ray()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(found["addresses"]) > 4
    assert set(found["addresses"]) <= LOOPBACK
    assert (found["reports"], found["mode"], found["token"]) == ("0", "token", 64)
    # Its secret is of this run, and stays nowhere.
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def processes_with(variable: str) -> list[Path]:
    """Processes of this machine that have a variable, or had it as they began."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


@pytest.mark.slow
def test_a_run_that_is_told_to_end_says_so_in_one_line_and_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    need_ray()
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text("".join(json.dumps({"text": "the film " * 10 + str(row)}) + "\n" for row in range(30_000)))
    # Sockets have short names alone.
    with tempfile.TemporaryDirectory(prefix="pru-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "pru", "score", str(corpus), "--ray", "--out", str(out)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": folder},
            stderr=subprocess.PIPE,
            text=True,
        )
        while not list(out.glob("part-*")):
            assert process.poll() is None
            time.sleep(0.05)
        assert len(processes_with(f"TMPDIR={folder}")) > 4
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        # Nothing of Ray's in it, from the start to the end.
        assert [line for line in said.splitlines() if not line.endswith(" texts")] == [
            f"error: interrupted; the same command goes on from what is finished in {out}"
        ]
        assert process.returncode == 2
        assert list(Path(folder).iterdir()) == []
        assert processes_with(f"TMPDIR={folder}") == []
