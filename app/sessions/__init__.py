"""Where sessions live: `open_store` makes the store that a setting names.

Boundary: reads the address. What a store promises is `app.sessions.store`.
"""

from __future__ import annotations

from pathlib import Path

from app.sessions.sqlite import SQLiteStore
from app.sessions.store import SessionStore
from model.errors import ConfigurationError

_SQLITE = "sqlite:///"


def open_store(url: str) -> SessionStore:
    """The store at an address, for its `open` to make ready; `ConfigurationError` where the address names none.

    As SQLAlchemy writes them, `sqlite:///sessions.db` is relative to the working folder and `sqlite:////data/sessions.db`
    absolute. The address is not repeated in the error: those of other stores may hold a password.
    """
    name = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not name.strip("/") or name.startswith(":memory:") or "?" in name:
        raise ConfigurationError(
            "the session store must be a file named as sqlite:///sessions.db (in the working folder) or "
            "sqlite:////data/sessions.db (absolute), without options"
        )
    return SQLiteStore(Path(name))
