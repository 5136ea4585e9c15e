"""A Ray cluster for one command: the one that `RAY_ADDRESS` names, or one of this machine's cores that ends with it.

Boundary: where Ray runs. Nothing of it is reached from other machines, nothing is reported and no dashboard is served,
unless whoever started the cluster that is named has it so. Ray says nothing in the terminal, and is gone when the
command is told to end.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
"""Ray reports its use to its makers unless told not to, and writes to the terminal between the lines of the command."""
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own variable, too: with 0 it uses the loopback, as on systems where it makes no clusters of machines."""
STORE_BYTES = 96 << 20
"""Memory for what workers hand on, of which there is next to nothing here; Ray itself would take a third of all."""
CONNECT_SECONDS = 5.0
"""For a machine of a named cluster to answer: Ray itself would try for minutes."""
PATIENCE_SECONDS = 5.0
"""For a core to be free, before it is said that there is none."""


def _alone() -> dict[str, str]:
    """What makes a cluster one of this machine and of this command: the loopback, and a secret that only it knows."""
    return {ON_LOOPBACK: "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def check_installed() -> None:
    """Raise `ConfigurationError` where Ray, or what it is used with, is not installed."""
    for package in ("ray", "pyarrow"):
        if find_spec(package) is None:
            raise ConfigurationError(
                f"--ray needs {package}, which is not installed; pip install '.[cpu,ray]' brings it"
            )


@contextmanager
def cluster() -> Iterator[int]:
    """Be connected to a cluster with a free core; its cores. `ConfigurationError` where there is none to connect to.

    Where the process is told to end (SIGTERM), the block is interrupted as by Ctrl-C.
    """
    address = os.environ.get(ADDRESS)
    if address:
        _find(address)
        # Ray waits for as long as something else answers there.
        print(f"connecting to the cluster at {address}", file=sys.stderr, flush=True)
    for name, value in (QUIET if address else QUIET | _alone()).items():
        os.environ.setdefault(name, value)
    with ExitStack() as kept:
        kept.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _interrupt))
        ray: Any = import_module("ray")  # Reads the environment as it is imported.
        own: dict[str, Any] = {}
        if not address:
            folder = tempfile.TemporaryDirectory(prefix="pru-ray-", ignore_cleanup_errors=True)
            own = {
                "num_cpus": len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": kept.enter_context(folder),
            }
        kept.enter_context(_guarded(*([own["_temp_dir"]] if own else [])))
        kept.callback(ray.shutdown)
        try:
            with _silenced():
                ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:  # What Ray raises here has no base of its own.
            reason = str(error).partition("\n")[0]
            place = f"connect to the cluster at {ADDRESS}={address}" if address else "start on this machine"
            raise ConfigurationError(f"Ray cannot {place}: {reason}") from None
        signal.signal(signal.SIGTERM, _interrupt)  # Ray has put its own in place.
        cores = int(ray.cluster_resources().get("CPU", 0))
        _wait_for_a_core(ray, cores)
        yield cores


def _find(address: str) -> None:
    """Raise `ConfigurationError` where nobody answers at HOST:PORT; Ray has other forms of addresses, too."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ConfigurationError(
            f"there is no cluster at {ADDRESS}={address}: {reason}; start it, or unset {ADDRESS} to use this machine"
        ) from None


@contextmanager
def _guarded(*folders: str) -> Iterator[None]:
    """Have `app.on_ray.guard` speak and remove folders where this process ends within the block."""
    program = [sys.executable, str(Path(__file__).with_name("guard.py")), *folders]
    with subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.communicate(b"well")


def _wait_for_a_core(ray: Any, cores: int) -> None:
    """Return when a core of the cluster is free, and say once that it takes long."""
    begun, is_said = time.monotonic(), False
    while ray.available_resources().get("CPU", 0) < 1:
        if not is_said and time.monotonic() - begun > PATIENCE_SECONDS:
            is_said = True
            print(f"none of the cluster's {cores} cores is free; waiting for one", file=sys.stderr, flush=True)
        time.sleep(0.1)


@contextmanager
def _silenced() -> Iterator[None]:
    """Drop what goes to standard error, past Python too: Ray says there that it was told to say nothing."""
    if sys.stderr is None:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # The end, too, takes a moment.
    raise KeyboardInterrupt
