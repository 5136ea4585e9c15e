"""A cluster of this machine alone: reached from it alone, with a secret, and gone when it is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.on_ray.nodes import need_ray
from tests.source import ROOT

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel's tables write it, alone and within IPv6."""


def processes_with(variable: str) -> list[Path]:
    """Processes of this machine that have a variable, or had it as they began."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable in environment_of(process):
                found.append(process)
    return found


def environment_of(process: Path) -> list[str]:
    return (process / "environ").read_bytes().decode(errors="replace").split("\0")


def listening(processes: list[Path]) -> list[str]:
    """Addresses, as the kernel's tables write them, at which some processes listen."""
    # Local address, state and inode; 0A is a socket that listens.
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    addresses = {f"socket:[{row[9]}]": row[1].rpartition(":")[0] for row in rows if row[3] == "0A"}
    found = []
    for process in processes:
        for handle in (process / "fd").iterdir():
            with suppress(OSError):
                found.append(addresses.get(os.readlink(handle), ""))
    return [address for address in found if address]


@pytest.mark.slow
def test_a_run_is_reached_from_this_machine_alone_reports_nothing_and_leaves_nothing_where_it_is_told_to_end(
    tmp_path: Path,
) -> None:
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
        processes = processes_with(f"TMPDIR={folder}")
        addresses = listening(processes)
        assert len(addresses) > 4
        assert set(addresses) <= LOOPBACK
        told = dict(variable.split("=", 1) for variable in environment_of(processes[-1]) if variable)
        assert (told["RAY_USAGE_STATS_ENABLED"], told["RAY_AUTH_MODE"], len(told["RAY_AUTH_TOKEN"])) == (
            "0",
            "token",
            64,
        )
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        # Nothing of Ray's in it, from the start to the end.
        assert [line for line in said.splitlines() if not line.endswith(" texts")] == [
            f"error: interrupted; the same command goes on from what is finished in {out}"
        ]
        assert process.returncode == 2
        assert list(Path(folder).iterdir()) == []
        assert processes_with(f"TMPDIR={folder}") == []
        # Its secret is of this run, and stays nowhere.
        assert [path.name for path in tmp_path.iterdir()] == [corpus.name, out.name]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("pass", ""),
        ("raise SystemExit", ""),
        ("os._exit(1)", "error: Ray ended the command; the same command goes on from what is finished\n"),
    ],
)
def test_the_guard_speaks_and_tidies_up_where_the_command_could_not(tmp_path: Path, end: str, said: str) -> None:
    folder = tmp_path / "folder"
    (folder / "session").mkdir(parents=True)
    program = f"import os\nfrom app.on_ray.cluster import _guarded\nwith _guarded({str(folder)!r}): {end}"
    # The guard has standard error, too, so that it is read to the guard's end.
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stderr, folder.exists()) == (said, not said)
