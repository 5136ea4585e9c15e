"""Tokens back to text as people write it: blanks, hyphens and quotes, by each corpus's convention.

Boundary: words of a vocabulary in, text out. The way from text to tokens is `model.conventions`; ids are
`model.vocabulary`'s. Each token is written knowing only those before it and the next one, so that text can also be
written while it is being predicted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

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
    speller = Speller(convention)
    for word in words:
        if speller.waits:
            yield speller.push(word)
        else:
            speller.push(word)
    if speller.waits:
        yield speller.finish()


class Speller:
    """Writes words that come one by one, each when the next one is known."""

    def __init__(self, convention: Convention) -> None:
        self._convention = convention
        self._touches = self._at_line_start()
        self._left, self._apart = EOS, False
        self._word: str | None = None

    @property
    def waits(self) -> bool:
        """Whether there is a word that is not written yet."""
        return self._word is not None

    def push(self, word: str) -> str:
        """Take a word; the text of the one before it, which is certain now ("" where there is none)."""
        text = self._write(word)
        self._word = word
        return text

    def ahead(self, words: Iterable[str]) -> list[str]:
        """The text of each of some words if they came next and a line's end after them; nothing is taken."""
        other = Speller(self._convention)
        other._touches = self._touches.copy()
        other._left, other._apart, other._word = self._left, self._apart, self._word
        return [*(other.push(word) for word in words), other.finish()][1:]

    def finish(self) -> str:
        """The text of the last word, as a line's end follows it."""
        text = self._write(EOS)
        self._word = None
        return text

    def _write(self, right: str) -> str:
        word, left = self._word, self._left
        if word is None:
            return ""
        self._left = word
        if word == EOS:
            self._touches, self._apart = self._at_line_start(), False
            return "\n"
        before, after = self._touches(left, word, right)
        blank = " " if self._apart and not before else ""
        self._apart = not after
        return blank + surface(word, self._convention)

    def _at_line_start(self) -> _Punctuated | _Treebank:
        return _Treebank() if self._convention is Convention.PTB else _Punctuated()


class _Punctuated:
    """Whether a token touches its neighbours, token by token along a line; remembers the quotes that are open."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def copy(self) -> _Punctuated:
        """Another with the same quotes open."""
        other = _Punctuated()
        other._open = set(self._open)
        return other

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

    def copy(self) -> _Treebank:
        """Another; there is nothing to remember."""
        return _Treebank()

    def __call__(self, left: str, word: str, right: str) -> tuple[bool, bool]:
        """Whether `word` touches what is left of it, and what is right of it."""
        clitic = word == "n't" or (word[0] == "'" and not word[-1].isdecimal() and not _DECADE.fullmatch(word[1:]))
        return clitic, right == NUMBER and (word == "#" or word[-1] == "$")


def _is_number(word: str) -> bool:
    return word[0].isdecimal()
