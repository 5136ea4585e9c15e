"""From a request's text to states of the model: tokens within the limits, read from the nearest state that is known.

Boundary: text and ids in, tokens and results of reading out. What they are used for is `app.model_service`'s and
`app.sessions`' business; how they are computed `app.scheduler`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from app.access.caller import caller
from app.errors import FieldError
from app.prefix_cache import PrefixCache
from app.reading import Reading, Result, no_ids
from app.scheduler import Scheduler
from app.scoring import Floats, Ids
from model.vocabulary import Tokens, Vocabulary

T = TypeVar("T")

LONG = 4096
"""Characters or tokens beyond which work on a text leaves the event loop to others."""
URGENT_TOKENS = 256
"""Tokens up to which a text is read ahead of texts to score; a longer one waits its turn as they do."""


@dataclass(frozen=True)
class RequestLimits:
    """Most texts, and most tokens of all texts together, in one request."""

    texts: int
    tokens: int


class Reader:
    """Reads text with one model. `start` must have been awaited before anything is read."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        state_size: int,
        hidden_size: int,
        scheduler: Scheduler,
        cache: PrefixCache,
        limits: RequestLimits,
    ) -> None:
        self.vocabulary = vocabulary
        self.scheduler = scheduler
        self.limits = limits
        self._cache = cache
        self.metrics = scheduler.metrics
        self.hidden_size = hidden_size
        self.root: Floats = np.zeros(state_size, np.float32)
        """Packed row [S] after the initial `<eos>`, from which every text goes on."""

    async def start(self) -> None:
        """Read the initial `<eos>`."""
        eos = np.array([self.vocabulary.eos_id], np.int32)
        self.root = (await self.scheduler.read(Reading(self.root, eos))).state

    async def tokenise(
        self, path: tuple[str | int, ...], text: str, before: int, *, goes_on: bool, specials: bool = False
    ) -> Tokens:
        """Tokens of one text; `FieldError` where they and the `before` ones are too many for a request.

        Where a text `goes_on`, the newline that ends it is an `<eos>`; else that is the one of the text's end. With
        `specials`, a literal `<eos>` in it is one too.
        """
        room = self.limits.tokens - before
        tokens = await aside(
            len(text),
            lambda: self.vocabulary.tokenise(text, specials=specials, final_newline=goes_on, most=room),
        )
        if len(tokens) > room:
            raise FieldError(
                path,
                f"the request has more than {self.limits.tokens} tokens up to and with this text, which is as many as "
                "one request may have; send less text at a time",
            )
        return tokens

    async def read_from_start(self, ids: Ids, *, likely: bool = False) -> Result:
        """Read a whole text, from the longest beginning of it that was read before and is remembered."""
        owner = caller().name
        known, state = self._cache.longest(ids, owner)
        (self.metrics.miss if state is None else self.metrics.hit).inc()
        result = await self.read(self.root if state is None else state, ids[known:], likely=likely)
        if known < len(ids):
            self._cache.put(ids, result.state, owner)
            self.metrics.cache_bytes.set(self._cache.bytes)
        return result

    async def read(
        self,
        state: Floats,
        ids: Ids,
        targets: Ids | None = None,
        *,
        likely: bool = False,
        entropy: bool = False,
    ) -> Result:
        """Read on from a state; see `app.reading.Reading`."""
        targets = no_ids() if targets is None else targets
        urgent = len(ids) <= URGENT_TOKENS
        return await self.scheduler.read(Reading(state, ids, targets, likely=likely, entropy=entropy, urgent=urgent))

    async def read_seen(self, state: Floats, ids: Ids, *, rows: bool = False) -> Result:
        """The same with the hidden vectors [n + 1, E] on the way; with `rows`, all log-probabilities [n + 1, V] too."""
        targets = np.append(ids, self.vocabulary.eos_id).astype(np.int32) if rows else no_ids()
        urgent = len(ids) <= URGENT_TOKENS
        return await self.scheduler.read(Reading(state, ids, targets, hidden=True, rows=rows, urgent=urgent))


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do short work here and long work on another thread, so that other requests go on."""
    return work() if size <= LONG else await asyncio.to_thread(work)
