"""Tokens back to text as people write it: blanks, hyphens and quotes, by each corpus's convention.

Boundary: words of a vocabulary in, text out. The way from text to tokens is `model.conventions`; ids are
`model.vocabulary`'s. Each token is written knowing only those before it and the next one, so that text can also be
written while it is being predicted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

from model.conventions import EOS, JOINERS, NUMBER, Convention

_JOINED = {joiner: mark for mark, joiner in JOINERS.items()}
_CLOSING = ",.;:!?%)]}°²³′″”〉"
"""Marks that touch what is before them, alone or in a row ("...", "?!")."""
_OPENING = frozenset("([{“„〈")
_BEFORE_NUMBER = frozenset("$£€¥₹₤#−±~")
_BETWEEN = frozenset("/⁄‑")
"""Marks that touch the words on both sides."""
_DECADE = re.compile(r"\d0s")
_CLOCK = re.compile(r"\d\d?"), re.compile(r"\d\d")
_AFTER_APOSTROPHE = frozenset(("s", "t", "d", "m", "re", "ve", "ll"))


def surface(word: str, convention: Convention) -> str:
    """One word of a vocabulary as a person writes it: "@-@" is a hyphen; the Treebank's backslashes are left out."""
    if convention is Convention.PTB:
        return word.replace("\\", "")
    return _JOINED.get(word, word)


def written(words: Iterable[str], convention: Convention) -> Iterator[str]:
    """The text of each word with the blank before it where one belongs, a newline for `<eos>`; together, the text.

    Reads one word ahead of what it yields.
    """
    touches = _Treebank() if convention is Convention.PTB else _Punctuated()
    left, apart = EOS, False
    for word, right in pairwise(chain(words, (EOS,))):
        if word == EOS:
            yield "\n"
            touches, apart = type(touches)(), False
        else:
            before, after = touches(left, word, right)
            yield (" " if apart and not before else "") + surface(word, convention)
            apart = not after
        left = word


class _Punctuated:
    """Whether a token touches its neighbours, token by token along a line; remembers the quotes that are open."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def __call__(self, left: str, word: str, right: str) -> tuple[bool, bool]:
        """Whether `word` touches what is left of it, and what is right of it."""
        if word in ('"', "'"):
            return self._quote(left, word, right)
        if word in _JOINED or word in _BETWEEN:
            return True, True
        if word == "–":
            both = _is_number(left) and _is_number(right)
            return both, both
        if word == "’":
            return True, right in _AFTER_APOSTROPHE
        if word == ":":
            return True, bool(_CLOCK[0].fullmatch(left) and _CLOCK[1].fullmatch(right))
        if word == "°":
            return True, right in ("C", "F")
        touches_left = not word.strip(_CLOSING) or (word[0] == "'" and len(word) > 1)
        return touches_left, word in _OPENING or (word in _BEFORE_NUMBER and _is_number(right))

    def _quote(self, left: str, mark: str, right: str) -> tuple[bool, bool]:
        if mark in self._open:
            self._open.remove(mark)
            return True, False
        if mark == "'":
            if left[-1:] == "s" and left[0] != "'":
                return True, False
            if _DECADE.fullmatch(right):
                return False, True
            if _is_number(left) and _is_number(right):
                return True, True
        self._open.add(mark)
        return False, True


class _Treebank:
    """As `_Punctuated`, for a corpus without punctuation: clitics touch their word, currency its number."""

    def __call__(self, left: str, word: str, right: str) -> tuple[bool, bool]:
        """Whether `word` touches what is left of it, and what is right of it."""
        clitic = word == "n't" or (word[0] == "'" and not word[-1].isdecimal() and not _DECADE.fullmatch(word[1:]))
        return clitic, right == NUMBER and (word == "#" or word[-1] == "$")


def _is_number(word: str) -> bool:
    return word[0].isdecimal()
