"""The Penn Treebank's way of cutting words, as the language-modelling corpus has it.

Boundary: that of `model.conventions`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from model.conventions.base import NUMBER, PLAIN_MARKS, Piece

_TREEBANK_SIGNS = {"%": NUMBER, "£": "#"}


class PTBSplitter:
    """Penn Treebank tokens as the language-modelling corpus has them: lower case, numbers `N`, punctuation left out.

    A percent sign is `N` there too, a pound sign "#". Punctuation gives no token. Words with a hyphen, a stroke or an
    ampersand stay whole, known or not; only clitics, currency and per cent are cut off.
    """

    _CLITIC = r"(?:n't|'(?:s|m|d|re|ve|ll))(?![^\W_])"
    _SIGN = r"[$#£]|%(?!-|[^\W_])"
    _RUN = re.compile(r"""(?:(?!--|\.\.)[^,:;?!"()\[\]{}—…]|(?<=\d)[,:](?=\d))++""", re.DOTALL)
    """What lies between punctuation: a comma or a colon between digits is part of a number."""
    _PART = re.compile(rf"({_CLITIC}|{_SIGN})|(?:(?!{_CLITIC}|{_SIGN}).)++", re.DOTALL)
    _QUOTES = "'.-"
    """What may enclose or end a word without being part of it, unless the vocabulary says so."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._longest = max(map(len, known), default=0)

    def split(self, typed: str) -> list[Piece]:
        """See `Splitter`."""
        if typed in self._known:
            return [Piece(typed, 0, len(typed))]
        # "İ" alone is two characters in lower case; a plain "i" keeps the offsets.
        plain = typed.translate(PLAIN_MARKS).replace("–", "-").replace("İ", "i").lower()
        if plain in self._known:
            return [Piece(plain, 0, len(typed))]
        pieces: list[Piece] = []
        for run in self._RUN.finditer(plain):
            for part in self._PART.finditer(plain, *run.span()):
                start, end = part.span()
                if not part[1]:
                    pieces.extend(self._word(plain, typed, start, end))
                elif pieces and pieces[-1].end == start and plain[pieces[-1].start : end] in self._known:
                    # "us$" is a word.
                    start = pieces.pop().start
                    pieces.append(Piece(plain[start:end], start, end))
                else:
                    pieces.append(self._piece(_TREEBANK_SIGNS.get(part[1], part[1]), start, end))
        return pieces

    def _word(self, plain: str, typed: str, start: int, end: int) -> Iterator[Piece]:
        """The token of a word in its punctuation, and the one of the possessive apostrophe that may end it."""
        first = start
        while start < end and plain[start] in self._QUOTES and not self._knows(plain, start, end):
            start += 1
        quoted = plain[first:start].endswith("'")
        possessive = None
        while start < end and plain[end - 1] in self._QUOTES and not self._knows(plain, start, end):
            end -= 1
            if plain[end] == "'" and not quoted and end > start and plain[end - 1] == "s":
                possessive = self._piece("'", end, end + 1)
        word = plain[start:end]
        if word == "cannot":
            yield self._piece("can", start, start + 3)
            yield self._piece("not", start + 3, end)
        elif word and (typed[start:end] == NUMBER or _is_number(word)):
            yield self._piece(NUMBER, start, end)
        elif word:
            forms = (word, word.replace("/", "\\/"), word.replace("*", "\\*"), unicodedata.normalize("NFC", word))
            yield Piece(next((form for form in forms if form in self._known), None), start, end)
        if possessive:
            yield possessive

    def _knows(self, plain: str, start: int, end: int) -> bool:
        return end - start <= self._longest and plain[start:end] in self._known

    def _piece(self, word: str, start: int, end: int) -> Piece:
        return Piece(word if word in self._known else None, start, end)


def _is_number(word: str) -> bool:
    """Whether a word has digits and no letters, like "1,990.5", "3/4" or "1989-90"."""
    return any(map(str.isdecimal, word)) and not any(map(str.isalpha, word))
