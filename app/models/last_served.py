"""What was served last, for the worker that takes the place of one that died.

Boundary: a plan, in memory that a process shares with those that it forks. Who dies with a file of models that cannot
be read any more, or a bundle that cannot be opened, would else be followed by one that knows neither.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from app.models.file import Plan

_PLAN = TypeAdapter(Plan)


class LastServed:
    """The sources that answered last, by name. Made before processes are forked, it is one for all of them."""

    def __init__(self) -> None:
        self._file = os.memfd_create("pru-models", os.MFD_CLOEXEC)

    def keep(self, plan: Plan) -> None:
        """Remember a plan in the place of the one before."""
        data = _PLAN.dump_json(plan)
        with self._locked():
            if data != self._read():
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, data, 0)

    def plan(self) -> Plan | None:
        """The plan; None where there is none yet, or whoever wrote it was killed meanwhile."""
        with self._locked():
            data = self._read()
        try:
            return _PLAN.validate_json(data)
        except ValidationError:
            return None

    def _read(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among processes, by a lock that the system lets go of with whoever holds it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
