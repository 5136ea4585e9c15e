"""How many bytes of bodies one process holds at once: of all requests that still arrive or are not answered yet.

Boundary: counts bytes on the event loop. When they come, and when they are let go of, `app.middleware` knows.
"""

from __future__ import annotations

from app.errors import BodyMemoryError

FREE_BYTES = 64 * 2**10
"""Of each body that are not counted: what its connection buffers in any case, so that as many connections as may be
bound them. Whoever fills the rest with large bodies keeps nobody from asking for a few words."""


class Bodies:
    """Room for so many bytes of all bodies together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def check(self, size: int, larger: int) -> None:
        """Raise `BodyMemoryError` where there is no room for a body of `size` bytes to become `larger`."""
        if self._held - _counted(size) + _counted(larger) > self._most:
            raise BodyMemoryError(
                f"the bodies of all requests together would be larger than {self._most} bytes; send less at a time, or "
                "try again in a moment"
            )

    def change(self, size: int, now: int) -> None:
        """Note that a body of `size` bytes has as many `now`; 0 where it is let go of."""
        self._held += _counted(now) - _counted(size)


def _counted(size: int) -> int:
    return max(0, size - FREE_BYTES)
