"""The key that a caller sends to a service which needs one.

Boundary: an argument or the environment in, a header field out. No error repeats a key.
"""

from __future__ import annotations

import os
import re

from model.errors import ConfigurationError

VARIABLE = "PRU_API_KEY"
_SENDABLE = re.compile("[!-~]+")


def bearer(api_key: str | None = None) -> str | None:
    """The field `Authorization` with a key, or else with the variable's one; None where there is none."""
    key = api_key or os.environ.get(VARIABLE)
    if not key:
        return None
    if not _SENDABLE.fullmatch(key):
        raise ConfigurationError(
            f"the key (api_key, or the variable {VARIABLE}) holds a blank or what no key has; give it as it was made"
        )
    return f"Bearer {key}"
