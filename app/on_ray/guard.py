"""The last word of a command that Ray ends: where its head is gone, Ray ends the process at once, without one.

So it does where SIGTERM reaches all processes of a job, as Slurm and systemd send it.

Boundary: a program of its own beside the command, `guard.py [FOLDER]`, which imports nothing of this project. It waits
for the end of its input. Where that is empty, the command could not say that it ends well: the guard says so, and
removes the folder.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

WAITS, SECONDS = 20, 0.5
"""Ray's other processes write into the folder until they notice that the command is gone."""


def main() -> None:
    """Wait, speak, and tidy up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    print("error: Ray ended the command; the same command goes on from what is finished", file=sys.stderr, flush=True)
    for folder in map(Path, sys.argv[1:]):
        for _ in range(WAITS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(SECONDS)


if __name__ == "__main__":
    main()
