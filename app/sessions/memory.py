"""What a personal session remembers of its user: hidden vectors with the tokens that followed, and his own words.

Boundary: arrays, words, and the bytes of both. What is made of them is `app.personal`'s. What the model wrote is not
remembered: only what was typed.

    tokens n, floats of a vector E, own words m     uint32       all little-endian
    vectors                                         int8 [n, E], 127 for 1
    words, places                                   int32 [n] each
    own places                                      int32 [m]
    own words                                       UTF-8, a newline between two
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from app.personal import Adaptation, Doubles, OwnWords, left_of_unknown, mixed, own_words, shares
from app.scoring import Floats, Ids
from app.session_schemas import Personal
from app.sessions.cursor import LONGEST_TAIL
from model.vocabulary import Tokens

Bytes = npt.NDArray[np.int8]

MOST_OWN = 500
"""Latest typings of words outside the vocabulary that count."""
LONGEST_OWN = 40
"""Characters of the longest of them; no longer one is remembered."""

PARTS = 127
"""Of 1, in which a hidden vector's floats are kept: in a quarter of their bytes they serve the cache as well."""
_HYPHENS = ("-", "\u2010", "\u2011")
_KEPT_OWN = MOST_OWN + LONGEST_TAIL
_HEAD = struct.Struct("<III")


@dataclass(frozen=True)
class OwnWord:
    """A word outside the vocabulary as it was typed, and its token's index in the text."""

    index: int
    spelling: str


def own_words_of(text: str, tokens: Tokens) -> list[OwnWord]:
    """A text's words outside the vocabulary; what has neither letter nor digit, or is too long, is none.

    With what hangs on them by hyphens: "foo-bar" is one of `foo`.
    """
    places = np.flatnonzero(tokens.unknown)
    spellings = [text[tokens.starts[place] : _end(text, tokens, place)] for place in places.tolist()]
    return [
        OwnWord(index, spelling)
        for index, spelling in zip(places.tolist(), spellings, strict=True)
        if len(spelling) <= LONGEST_OWN and any(map(str.isalnum, spelling))
    ]


def _end(text: str, tokens: Tokens, place: int) -> int:
    """Where a word ends that begins with a token, and goes on as long as a hyphen joins it to another one."""
    starts, ends = tokens.starts, tokens.ends
    while (
        place + 2 < len(tokens)
        and ends[place] == starts[place + 1]
        and ends[place + 1] == starts[place + 2]
        and text[starts[place + 1] : ends[place + 1]] in _HYPHENS
        and text[starts[place + 2]].isalnum()
    ):
        place += 2
    return int(ends[place])


@dataclass(frozen=True, eq=False)
class Memory:
    """What was typed, oldest first. A place is a position of the session after a token; places ascend.

    More is kept than counts, by as much as a session can be rewound: back there, it is as it was.
    """

    vectors: Bytes
    """Hidden vector [n, E] before each token, in parts of 127: it lies between -1 and 1 (o * tanh(c))."""
    words: Ids
    """The token [n] that followed."""
    places: Ids
    """The place [n] after it."""
    own_places: Ids
    """The place [m] after each word outside the vocabulary."""
    own: Sequence[str]
    """These words [m] as they were typed."""

    @classmethod
    def nothing(cls, hidden_size: int) -> Memory:
        """Before anything was typed."""
        none = np.empty(0, np.int32)
        return cls(np.empty((0, hidden_size), np.int8), none, none, none, ())

    def learn(self, vectors: Floats, ids: Ids, position: int) -> Memory:
        """With tokens [k] that were typed from `position` on, and the hidden vectors [k, E] before them."""
        return replace(
            self,
            vectors=np.concatenate([self.vectors, _rounded(vectors)]),
            words=np.concatenate([self.words, ids]),
            places=np.concatenate([self.places, _after(position, np.arange(len(ids)))]),
        )

    def note(self, words: Sequence[OwnWord], position: int) -> Memory:
        """With the words outside the vocabulary of a text that was typed from `position` on."""
        if not words:
            return self
        places = _after(position, np.array([word.index for word in words]))
        return replace(
            self,
            own_places=np.concatenate([self.own_places, places]),
            own=[*self.own, *(word.spelling for word in words)],
        )

    def cut(self, window: int) -> Memory:
        """No more than a server with this window keeps."""
        tokens, own = slice(-kept(window), None), slice(-_KEPT_OWN, None)
        return Memory(
            self.vectors[tokens], self.words[tokens], self.places[tokens], self.own_places[own], self.own[own]
        )

    def until(self, position: int) -> Memory:
        """As it was at an earlier position."""
        tokens = int(np.searchsorted(self.places, position, side="right"))
        own = int(np.searchsorted(self.own_places, position, side="right"))
        return Memory(
            self.vectors[:tokens], self.words[:tokens], self.places[:tokens], self.own_places[:own], self.own[:own]
        )

    def told(self, window: int) -> Personal:
        """What an answer says of it."""
        return Personal(tokens=min(len(self.words), window), own_words=len(set(self.own[-MOST_OWN:])))

    def to_bytes(self) -> bytes:
        """As it is stored."""
        head = _HEAD.pack(len(self.words), self.vectors.shape[1], len(self.own))
        arrays = [self.vectors, *(it.astype("<i4") for it in (self.words, self.places, self.own_places))]
        return b"".join([head, *(array.tobytes() for array in arrays), "\n".join(self.own).encode()])

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """What was stored; `ValueError` where the bytes are something else."""
        try:
            tokens, size, count = _HEAD.unpack_from(data)
        except struct.error:
            raise ValueError("too short") from None
        sizes = [tokens * size, 4 * tokens, 4 * tokens, 4 * count]
        edges = list(accumulate([_HEAD.size, *sizes]))
        text = data[edges[-1] :].decode()
        own = text.split("\n") if count else []
        if len(data) < edges[-1] or len(own) != count or (text and not count):
            raise ValueError("another length")
        vectors, words, places, own_places = (data[start:stop] for start, stop in pairwise(edges))
        return cls(
            np.frombuffer(vectors, np.int8).reshape(tokens, size),
            np.frombuffer(words, "<i4"),
            np.frombuffer(places, "<i4"),
            np.frombuffer(own_places, "<i4"),
            own,
        )

    def is_sound(self, hidden_size: int, vocabulary_size: int, position: int) -> bool:
        """Whether it can be that of a session of such a model at a position, and is no larger than any."""
        return (
            self.vectors.shape[1] == hidden_size
            and bool(((self.words >= 0) & (self.words < vocabulary_size)).all())
            and _ascend(self.places, position)
            and _ascend(self.own_places, position)
            and all(len(word) <= LONGEST_OWN and word.split() == [word] for word in self.own)
        )


def kept(window: int) -> int:
    """Tokens that are kept for a window to look back on."""
    return window + LONGEST_TAIL


def _rounded(vectors: Floats) -> Bytes:
    return np.rint(np.clip(vectors, -1, 1) * PARTS).astype(np.int8)


def _after(position: int, indices: npt.NDArray[np.signedinteger]) -> Ids:
    """The places after tokens that were read from a position on."""
    return (position + 1 + indices).astype(np.int32)


def _ascend(places: Ids, position: int) -> bool:
    """Whether places follow one another, up to a position."""
    return bool((np.diff(places, prepend=0) > 0).all()) and bool((places <= position).all())


class Recall:
    """A memory as it is asked: what it makes of the model's log-probabilities `likely` [V] after a vector [E]."""

    def __init__(self, memory: Memory, adaptation: Adaptation, unk_id: int) -> None:
        self._memory = memory
        self._adaptation = adaptation
        self._unk_id = unk_id

    @cached_property
    def _vectors(self) -> Floats:
        return self._memory.vectors.astype(np.float32) / np.float32(PARTS)

    def mixed(self, vector: Floats, likely: Floats, known: int | None = None) -> Floats:
        """Log-probabilities [V] with the cache; of a memory's tokens, the first `known` (all) are remembered."""
        window, share = self._shares(vector, known)
        return mixed(likely, self._memory.words[window], share, self._adaptation.weight)

    def suggested(self, vector: Floats, likely: Floats) -> tuple[Floats, OwnWords]:
        """The same, but that `<unk>` has what the user's own words leave of it; and these."""
        memory = self._memory
        window, share = self._shares(vector, None)
        values = mixed(likely, memory.words[window], share, self._adaptation.weight)
        places, own_places = memory.places[window], memory.own_places[-MOST_OWN:]
        cached = np.zeros(len(own_places))
        remembered = np.isin(own_places, places)
        cached[remembered] = share[np.searchsorted(places, own_places[remembered])]
        weight = self._adaptation.weight if len(share) else 0.0
        own = own_words(memory.own[-MOST_OWN:], cached, float(likely[self._unk_id]), weight)
        if own.spellings:
            values = values.copy()
            values[self._unk_id] = left_of_unknown(float(values[self._unk_id]), own)
        return values, own

    def _shares(self, vector: Floats, known: int | None) -> tuple[slice, Doubles]:
        """Which of the memory's tokens the cache looks back on, and what each has of it."""
        stop = len(self._memory.words) if known is None else known
        window = slice(max(0, stop - self._adaptation.window), stop)
        if window.start == stop:
            return window, np.empty(0)
        return window, shares(self._vectors[window], vector, self._adaptation.theta)
