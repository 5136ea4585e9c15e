"""Who asks: what the rest of the service knows of a key.

Boundary: the one caller of the task that runs. The middleware says who it is; whatever the task starts inherits it. So
neither routes nor services hand a caller on, and none can forget to.

What belongs to a caller is named by `owned`, and what has another's name cannot be asked for: it is not there.
"""

from __future__ import annotations

from contextvars import ContextVar


class Caller:
    """Somebody without a key, who may do whatever is let through to here, as much as there is."""

    name = ""
    """The name of the caller's key, for logs and metrics; "" where there is none."""

    @property
    def sees_holders(self) -> bool:
        """Whether this caller may know who has keys, and how much each of them asks."""
        return False

    def begin(self) -> None:
        """Count one request, if this caller still may ask: `UnauthorizedError` where not, `QuotaError` over quota."""

    def charge(self, tokens: int) -> None:
        """Count tokens that the engine is about to read or write for the request that began last.

        Over quota it is `QuotaError`, and neither they nor the request count; `ForbiddenError` where they are more
        than this caller may ever ask for at once.
        """

    def give_back(self, tokens: int) -> None:
        """Count no more what was charged and not used."""


ANYBODY = Caller()

CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""The caller of the running task."""


def caller() -> Caller:
    """Who asks for what is being done."""
    return CALLER.get()


def owned(name: str) -> str:
    """What a store is to call something that its caller calls by `name`.

    A blank, which no name of a key holds, ends the owner's name, and what follows it has none. Without a key a name is
    its own, as it was before there were keys.
    """
    owner, within = caller().name, name.replace(" ", "%20")
    return f"{owner} {within}" if owner else within


def bare(name: str) -> str:
    """What its caller calls something that a store calls by `name`."""
    return name.rpartition(" ")[2]
