"""Characters in a typed word that are not seen, or are two letters in one: what scanned and copied text brings.

Boundary: that of `model.conventions`. Soft hyphens and other invisible characters are left out, and Latin ligatures are
their letters, before a convention cuts the word; its pieces stand where they stood in the word as it was typed.

The joiners U+200C and U+200D mean something in other scripts and between emoji; they are left out after Latin letters.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from model.conventions.base import Piece, Splitter

_INVISIBLE = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
_FOLDED = re.compile(rf"[{_INVISIBLE}]|(?<=[A-Za-z\u00c0-\u024f\ufb00-\ufb06])[\u200c\u200d]|[\ufb00-\ufb06]")
_SEEN = re.compile(rf"[^{_INVISIBLE}\u200c\u200d]")


class FoldingSplitter:
    """Cuts folded words as another splitter does; a word that the vocabulary has as it is stays so."""

    def __init__(self, splitter: Splitter, known: frozenset[str]) -> None:
        self._splitter = splitter
        self._known = known

    def split(self, typed: str) -> list[Piece]:
        """See `Splitter`."""
        plain = folded(typed)
        if plain == typed or typed in self._known:
            return self._splitter.split(typed)
        # What was left out belongs to the character before it; at the beginning, to the first.
        places = [match.start() for match in _FOLDED.finditer(typed)]
        widths = {place: len(_letters(typed[place])) for place in places}
        sources = [place for place in range(len(typed)) for _ in range(widths.get(place, 1))]
        starts = [0, *sources[1:]]
        ends = [
            *(later if later > own else own + 1 for own, later in pairwise(sources)),
            len(typed),
        ]
        return [Piece(word, starts[start], ends[end - 1]) for word, start, end in self._splitter.split(plain)]


def folded(typed: str) -> str:
    """A word without what is not seen, and without ligatures; as it is where nothing of it is seen."""
    if typed.isascii() or not _SEEN.search(typed):
        return typed
    return _FOLDED.sub(lambda match: _letters(match[0]), typed)


def _letters(character: str) -> str:
    """What one character is folded into."""
    return unicodedata.normalize("NFKC", character) if "\ufb00" <= character <= "\ufb06" else ""
