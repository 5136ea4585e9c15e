"""Where sessions live: `open_store` makes the store that a setting names.

Boundary: reads the kind of the address. What a store promises is `app.sessions.store`.
"""

from __future__ import annotations

from pathlib import Path

from app.sessions.sqlite import SQLiteStore
from app.sessions.store import SessionStore
from model.errors import ConfigurationError

_SQLITE = "sqlite:///"
_REDIS = ("redis:", "rediss:", "unix:")


def open_store(url: str) -> SessionStore:
    """The store at an address, for its `open` to make ready; `ConfigurationError` where the address names none.

    As SQLAlchemy writes them, `sqlite:///sessions.db` is relative to the working folder and `sqlite:////data/sessions.db`
    absolute; `RedisStore` says how a Redis is named. No address is repeated in an error: it may hold a password.
    """
    if url.startswith(_REDIS):
        from app.sessions.redis import RedisStore  # noqa: PLC0415 - its client loads OpenTelemetry's SDK where it finds it

        return RedisStore(url)
    name = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not name.strip("/") or name.startswith(":memory:") or "?" in name:
        raise ConfigurationError(
            "the session store must be a file named as sqlite:///sessions.db (in the working folder) or "
            "sqlite:////data/sessions.db (absolute), without options, or a Redis named as redis://HOST:PORT/DATABASE"
        )
    return SQLiteStore(Path(name))
