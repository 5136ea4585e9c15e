"""HAProxy with the project's configuration, before servers of this machine.

Boundary: the process and its configuration. What passes through it is the others' business.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "haproxy" / "haproxy.cfg"
START_SECONDS = 20.0


class ProxyError(Exception):
    """HAProxy did not start, or its configuration is not the one that is known here."""


def find_haproxy() -> str | None:
    """The binary, if there is one; Debian puts it where only root's path looks."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def proxy(binary: str, ports: Sequence[int], folder: Path) -> Iterator[int]:
    """The port of a proxy before the servers that listen on `ports` of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    text, frontends = re.subn(r"bind :8080", f"bind 127.0.0.1:{port}", CONFIGURATION.read_text(encoding="utf-8"))
    servers = "\n".join(f"    server replica{place} 127.0.0.1:{each}" for place, each in enumerate(ports))
    text, backends = re.subn(r"    server-template .*", servers, text)
    if (frontends, backends) != (1, 1):
        raise ProxyError(f"{CONFIGURATION} has another address or other servers than are replaced here")
    path = folder / "haproxy.cfg"
    path.write_text(text, encoding="utf-8")
    process = subprocess.Popen([binary, "-q", "-f", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(port):
            if time.monotonic() > end or process.poll() is not None:
                raise ProxyError("haproxy did not start; `haproxy -c -f` says what it lacks")
            time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
