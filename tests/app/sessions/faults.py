"""What a store that fails says, and to whom."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from app.errors import StoreError


async def refused(operation: Awaitable[object], place: str, *words: str) -> str:
    """An operation fails and says these words, with the place of the store for the log alone; all that it says."""
    with pytest.raises(StoreError) as raised:
        await operation
    details, told = raised.value.details, str(raised.value)
    assert details.startswith(place)
    assert told.startswith("the session store ")
    assert not any(part in told for part in ("/", ".db", "127.0.0.1", "localhost"))
    assert "\n" not in details + told
    said = f"{details}; {told}"
    assert all(word in said for word in words), said
    return said
