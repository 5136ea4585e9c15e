"""A Ray cluster for one command: the one that `RAY_ADDRESS` names, or one of this machine's cores that ends with it.

Boundary: where Ray runs. Nothing of it is reached from other machines, nothing is reported and no dashboard is served,
unless whoever started the cluster that is named has it so.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
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
    """Be connected to a cluster; its cores. `ConfigurationError` where there is none to connect to."""
    address = os.environ.get(ADDRESS)
    for name, value in (QUIET if address else QUIET | _alone()).items():
        os.environ.setdefault(name, value)
    ray: Any = import_module("ray")  # Reads the environment as it is imported.
    with ExitStack() as kept:
        own: dict[str, Any] = {}
        if not address:
            folder = tempfile.TemporaryDirectory(prefix="pru-ray-", ignore_cleanup_errors=True)
            own = {
                "num_cpus": len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": kept.enter_context(folder),
            }
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:  # What Ray raises here has no base of its own.
            reason = str(error).partition("\n")[0]
            place = f"connect to the cluster at {ADDRESS}={address}" if address else "start on this machine"
            raise ConfigurationError(f"Ray cannot {place}: {reason}") from None
        try:
            yield int(ray.cluster_resources().get("CPU", 0))
        finally:
            ray.shutdown()
