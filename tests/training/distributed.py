"""Training commands in processes of their own, several at once where they are to train one model together."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import warnings
from pathlib import Path

from training.cli import main

_FORKS = multiprocessing.get_context("forkserver")
# A process then has torch at once, and what its optimisers and `DistributedDataParallel` load besides.
_FORKS.set_forkserver_preload([__name__, "torch._dynamo", "torch.distributed.fsdp"])


def together(processes: int, log: Path, *arguments: object) -> list[tuple[int, str]]:
    """Exit status and everything written of each process that runs `python -m training` with these arguments.

    They find each other by what `torchrun` would set. Warnings are errors in them.
    """
    port = free_port()
    log.mkdir()
    running = [
        _FORKS.Process(target=_run, args=(rank, processes, port, log / str(rank), [str(a) for a in arguments]))
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        process.kill()
        process.join()
    return [(process.exitcode or 0, (log / str(rank)).read_text()) for rank, process in enumerate(running)]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _run(rank: int, size: int, port: int, log: Path, arguments: list[str]) -> None:
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{size}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    written = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(written, 1)
    os.dup2(written, 2)
    warnings.simplefilter("error")
    sys.argv = ["training", *arguments]
    main()
