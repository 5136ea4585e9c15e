"""An interpolated n-gram model with modified Kneser-Ney smoothing (Chen and Goodman, 1998), unpruned.

Boundary: word ids in, the log-probability of every word at every place out. It is what KenLM's `lmplz --skip_symbols`
estimates, which answers for one word at a time; here all words of a context are found at once.

An n-gram is a node of a tree: its key is the node of its first n-1 words, times V, plus its last word. Keys are sorted,
so that the words seen after a context stand together. `<eos>` begins a line where it comes first in an n-gram and ends
one elsewhere; no n-gram reaches over a line's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.errors import CorpusError

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

_ROWS = 256
"""Places whose probabilities are in memory at once."""


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length, sorted by context."""

    keys: _Integers
    words: _Integers
    """The last word of each."""
    shares: Floats
    """Its discounted count over the sum of its context's counts."""
    first: _Integers
    """Where each context's n-grams begin, [contexts + 1]."""
    back_off: Floats
    """What each context leaves to the next shorter one: 1 where nothing was seen after it."""


class KneserNey:
    """A model of the lines that it was made from."""

    def __init__(self, ids: Ids, eos_id: int, vocabulary_size: int, order: int) -> None:
        """Estimate n-grams of up to `order` words, 2 or more, from `ids` [n], whose lines end with `eos_id`.

        Raises `CorpusError` where a length lacks n-grams of a count from 1 to 4, which its discounts are made of.
        """
        self._eos_id, self._size = eos_id, vocabulary_size
        stream = self._stream(ids)
        keys, counts = np.arange(vocabulary_size), np.bincount(stream[1:], minlength=vocabulary_size)
        # At every place of the stream, the node of the n-gram that ends there: -1 where a line's start is too near.
        nodes, contexts = stream, 1
        self._orders: list[_Order] = []
        for length in range(1, order):
            # The first of the longer keys is -1, that of places where no longer n-gram ends: the stream's first is one.
            longer, places, inverse, occurrences = np.unique(
                self._keys(nodes, stream, length + 1), return_index=True, return_inverse=True, return_counts=True
            )
            # A shorter n-gram counts once for each different word before it. Nothing stands before a line's start.
            different = np.bincount(nodes[places[1:]], minlength=len(keys))
            counts = np.where(self._begins_line(stream, nodes, length, len(keys)), counts, different)
            self._orders.append(self._estimate(keys, counts, contexts))
            contexts = len(keys)
            keys, counts, nodes = longer[1:], occurrences[1:], inverse - 1
        self._orders.append(self._estimate(keys, counts, contexts))
        unigrams = self._orders[0]
        self._unigrams = np.full(vocabulary_size, unigrams.back_off[0] / vocabulary_size, np.float32)
        self._unigrams[unigrams.words] += unigrams.shares

    def rows(self, ids: Ids) -> Iterator[Floats]:
        """Log-probability of every word at each place of a text `ids` [n] of lines: blocks of rows [m, V]."""
        stream = self._stream(ids)
        nodes = stream
        # At every place, the node of the context of each length that ends there: -1 where it was never seen.
        contexts = [nodes]
        for length, order in enumerate(self._orders[1:-1], start=2):
            wanted = self._keys(nodes, stream, length)
            found = np.minimum(np.searchsorted(order.keys, wanted), len(order.keys) - 1)
            nodes = np.where(order.keys[found] == wanted, found, -1)
            # What ends with a line's end is no context.
            contexts.append(np.where(stream == self._eos_id, -1, nodes))
        table = np.stack(contexts[: len(self._orders) - 1], axis=1)[:-1]
        for start in range(0, len(ids), _ROWS):
            likely = np.stack([self._probabilities(row) for row in table[start : start + _ROWS].tolist()])
            yield np.log(likely, out=likely)

    def _probabilities(self, contexts: list[int]) -> Floats:
        """Of every word, after contexts of 1, 2, ... words."""
        likely = self._unigrams.copy()
        for order, context in zip(self._orders[1:], contexts, strict=True):
            if context < 0:
                break
            likely *= order.back_off[context]
            seen = slice(order.first[context], order.first[context + 1])
            likely[order.words[seen]] += order.shares[seen]
        return likely

    def _stream(self, ids: Ids) -> _Integers:
        """The text and the line's start before it."""
        return np.concatenate(([self._eos_id], ids), dtype=np.int64)

    def _keys(self, nodes: _Integers, stream: _Integers, length: int) -> _Integers:
        """Key of the n-gram of `length` words that ends at each place, by the `nodes` of those one shorter; else -1."""
        before = np.concatenate(([-1], nodes[:-1]))
        if length > 2:
            before[1:][stream[:-1] == self._eos_id] = -1
        return np.where(before < 0, -1, before * self._size + stream)

    def _begins_line(self, stream: _Integers, nodes: _Integers, length: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether each n-gram begins a line. `<eos>` alone ends one."""
        begins = np.zeros(count, np.bool_)
        if length > 1:
            ends = np.flatnonzero(stream[: 1 - length] == self._eos_id) + length - 1
            begins[nodes[ends][nodes[ends] >= 0]] = True
        return begins

    def _estimate(self, keys: _Integers, counts: _Integers, contexts: int) -> _Order:
        first = np.searchsorted(keys, np.arange(contexts + 1) * self._size)
        context = np.repeat(np.arange(contexts), np.diff(first))
        total = np.bincount(context, counts, contexts)
        discount = _discounts(counts)[np.minimum(counts, 3)]
        kept = np.bincount(context, discount, contexts)
        back_off = np.divide(kept, total, out=np.ones(contexts), where=total > 0)
        return _Order(
            keys=keys,
            words=keys % self._size,
            shares=((counts - discount) / total[context]).astype(np.float32),
            first=first,
            back_off=back_off.astype(np.float32),
        )


def _discounts(counts: _Integers) -> _Doubles:
    """What is taken from an n-gram that counts 0, 1, 2, and 3 or more."""
    having = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if not having[1:5].all():
        raise CorpusError(
            "modified Kneser-Ney needs n-grams that occur 1, 2, 3 and 4 times; give more text, or a lower order"
        )
    step = having[1] / (having[1] + 2 * having[2])
    times = np.arange(1, 4)
    return np.concatenate(([0], times - (times + 1) * step * having[2:5] / having[1:4]))
