"""A proxy of the tests' own: HAProxy with the project's configuration, before servers of this machine."""

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

import pytest

from tests.source import ROOT

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
START_SECONDS = 20.0


def find_haproxy() -> str:
    """The binary. Where there is none, the test is skipped, or fails where CI is to have one."""
    # Debian puts it where only root's path looks.
    binary = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        missing = "needs haproxy (Debian and Ubuntu: apt-get install haproxy)"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return binary


@contextmanager
def proxy(ports: Sequence[int], folder: Path) -> Iterator[str]:
    """The address of a proxy before the servers that listen on `ports` of the loopback."""
    binary = find_haproxy()
    port = _free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    text, frontends = re.subn(r"bind :8080", f"bind 127.0.0.1:{port}", text)
    servers = "\n".join(f"    server replica{place} 127.0.0.1:{port}" for place, port in enumerate(ports))
    text, backends = re.subn(r"    server-template .*", servers, text)
    assert (frontends, backends) == (1, 1)
    path = folder / "haproxy.cfg"
    path.write_text(text, encoding="utf-8")
    process = subprocess.Popen([binary, "-q", "-f", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert time.monotonic() < end, "haproxy did not start"
            assert process.poll() is None, "haproxy ended"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
