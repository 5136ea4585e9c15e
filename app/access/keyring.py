"""The keys that hold just now: told from wrong ones, read again when their file changes, with their quotas.

Boundary: between what an operator wrote and who asks. Where credentials stand in a request, `app.access.middleware`
knows.

A key is found by its SHA-256 in a dictionary. How long that takes depends on the hash of what was sent, which nobody
can steer towards the hash of a key he does not know, and Python scatters by a secret of the process; so time tells
nothing of the keys there are. What has not the form of a key is not even hashed. No comparison sees a key itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from app.access import key_file
from app.access.caller import Caller
from app.access.key_file import Grant, Keys
from app.access.quotas import Amount, Quotas
from app.access.routes import RouteGroup
from app.errors import ForbiddenError, QuotaError, UnauthorizedError
from app.metrics import Metrics
from app.settings import Settings
from model.errors import ConfigurationError

POLL_SECONDS = 0.5
"""How often the file is looked at. A change is taken once it rested for as long: none is read half written."""
TELL_SECONDS = 10.0
"""How often the log hears of refused keys, however many they are."""

UNKNOWN = "the key is wrong, expired or withdrawn; ask the operator for a new one"

Stamp = tuple[int, ...] | None


class Keyring:
    """The keys of one service; none at all where no setting names any. Made before processes fork, it serves all."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._path = settings.keys_file
        self._text = settings.keys
        self._now = now
        self._keys: Keys | None = None
        self._stamp: Stamp = None
        self._seen: Stamp = None
        self._refused = 0
        self.quotas: Quotas
        self.metrics: Metrics | None = None

    @property
    def is_needed(self) -> bool:
        """Whether callers need keys."""
        return self._path is not None or bool(self._text)

    @property
    def grants(self) -> Mapping[bytes, Grant]:
        """Every grant by the SHA-256 of its key, those that are expired as well."""
        return self._keys.grants if self._keys else {}

    def load(self) -> tuple[str, ...]:
        """Read the keys, where none were read yet; `ConfigurationError` where that fails.

        Returns what an operator should know of the file, a line each.
        """
        if self._keys is None and self.is_needed:
            if self._path is not None and self._text:
                raise ConfigurationError("both PRU_KEYS and PRU_KEYS_FILE are set; put all keys into one of them")
            self._stamp = self._seen = _stamp(self._path) if self._path else None
            self._keys = self._read()
            self.quotas = Quotas()
        return self._keys.warnings if self._keys else ()

    def close(self) -> None:
        """Let go of what `load` took."""
        if self._keys is not None:
            self._keys = None
            self.quotas.close()

    def recognise(self, key: bytes, group: RouteGroup | None) -> KeyCaller:
        """The caller who sent a key, to routes of a group; `UnauthorizedError` where it is none that holds."""
        if not key_file.KEY.fullmatch(key):
            raise UnauthorizedError(UNKNOWN)
        return KeyCaller(self, hashlib.sha256(key).digest(), group)

    def grant_of(self, digest: bytes) -> Grant:
        """What the key of a hash gives just now; `UnauthorizedError` where nothing."""
        grant = self.grants.get(digest)
        if grant is None or (grant.expires is not None and grant.expires <= self._now()):
            raise UnauthorizedError(UNKNOWN)
        return grant

    def note_refused(self) -> None:
        """Count a request without a key that holds, for the log."""
        self._refused += 1

    async def watch(self, logger: FilteringBoundLogger) -> None:
        """Follow the file, and tell the log of refused keys now and then, until cancelled."""
        due = 0.0
        try:
            while True:
                if self._path is not None:
                    await self._follow(self._path, logger)
                due -= POLL_SECONDS
                if due <= 0 and self._refused:
                    self._tell_refused(logger)
                    due = TELL_SECONDS
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._tell_refused(logger)

    async def _follow(self, path: Path, logger: FilteringBoundLogger) -> None:
        """Take the file's keys where it has changed and rests; where they are wrong, the old ones stay."""
        stamp = await asyncio.to_thread(_stamp, path)
        rests, self._seen = stamp == self._seen, stamp
        if not rests or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            logger.error("the new keys are not taken, the old ones stay", reason=str(error))
        else:
            names = {grant.name for grant in self._keys.grants.values()}
            logger.info("new keys", keys=len(self._keys.grants), names=len(names))
            for warning in self._keys.warnings:
                logger.warning("the keys are kept carelessly", reason=warning)

    def _read(self) -> Keys:
        if self._path is not None:
            return key_file.read(self._path)
        return key_file.parse(self._text, key_file.ENVIRONMENT)

    def _tell_refused(self, logger: FilteringBoundLogger) -> None:
        if self._refused:
            count, self._refused = self._refused, 0
            logger.warning("requests without a key that holds", count=count)


class KeyCaller(Caller):
    """The holder of a key, who asks routes of a group.

    What the key gives is looked up anew for each request, since it may change while a client talks; and once for each,
    so that a request that began with a key that held is not broken off.
    """

    def __init__(self, keyring: Keyring, digest: bytes, group: RouteGroup | None) -> None:
        self._keyring = keyring
        self._digest = digest
        self._group = group
        self._grant = keyring.grant_of(digest)
        self.name = self._grant.name

    @property
    def sees_holders(self) -> bool:
        """Whether its limits say that it is for metrics; a key that has no limits is any holder's."""
        routes = self._grant.limits.routes
        return routes is not None and RouteGroup.METRICS in routes

    def begin(self) -> None:
        """Count one request; also `ForbiddenError` where the key is not for these routes."""
        grant = self._keyring.grant_of(self._digest)
        if grant.name != self.name:
            raise UnauthorizedError(UNKNOWN)
        self._grant = grant
        if grant.limits.routes is not None and self._group not in grant.limits.routes:
            raise ForbiddenError("this key is not for this route; ask the operator for one that is")
        self._take(1, 0)
        if self._keyring.metrics:
            self._keyring.metrics.asked(self.name)

    def charge(self, tokens: int) -> None:
        """Count tokens."""
        try:
            self._take(0, tokens)
        except (QuotaError, ForbiddenError):
            self._give_back(1, 0)
            raise
        if self._keyring.metrics:
            self._keyring.metrics.charged(self.name, tokens)

    def give_back(self, tokens: int) -> None:
        """Count tokens no more."""
        self._give_back(0, tokens)

    def _take(self, requests: int, tokens: int) -> None:
        most = self._grant.limits
        if most.requests_per_minute is None and most.tokens_per_minute is None:
            return
        wait = self._keyring.quotas.take(
            self.name, Amount(requests, most.requests_per_minute), Amount(tokens, most.tokens_per_minute)
        )
        if wait is None:
            return
        if math.isinf(wait.seconds):
            raise ForbiddenError(
                f"the request needs {tokens} tokens and this key may have {most.tokens_per_minute} a minute; send less "
                "at a time"
            )
        if self._keyring.metrics:
            self._keyring.metrics.over_quota(self.name)
        what = "requests" if requests else "tokens"
        raise QuotaError(wait.seconds, f"this key has used up its {what} of this minute")

    def _give_back(self, requests: int, tokens: int) -> None:
        most = self._grant.limits
        if most.requests_per_minute is not None or most.tokens_per_minute is not None:
            self._keyring.quotas.give_back(
                self.name, Amount(requests, most.requests_per_minute), Amount(tokens, most.tokens_per_minute)
            )


def _stamp(path: Path) -> Stamp:
    """What changes when a file does; None where it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
