"""The rule for anyone's own text: words and punctuation, case kept. It asks no vocabulary, so text makes one.

Boundary: that of `model.conventions`.

    letters and digits, with their combining marks   one word             naïve, 1990s, हिन्दी
    an apostrophe before a letter,                   part of the word     don't, O'Hara
    a period before a letter or a digit,             part of the word     site.org, 3.14
    a comma or a colon between digits                part of the word     1,200, 10:30
    single letters, each with a period               one word             U.S., e.g.
    a hyphen between words                           the token @-@        well-known: well @-@ known
    any other character; the same one repeated       one token            , ! ... -- === 🙂

Invisible characters are left out and ligatures are their letters (`model.conventions.folding`). Curly quotes and
apostrophes are read as straight ones. `<unk>` and WikiText's joiners (`@-@`) stand for themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import chain

from model.conventions.base import EOS, JOINERS, LONGEST_WORD, PLAIN_MARKS, UNK, Piece
from model.conventions.folding import folded


class PlainSplitter:
    """Cuts by the rule alone; the vocabulary only says which tokens it knows."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def split(self, typed: str) -> list[Piece]:
        """See `Splitter`."""
        return [Piece(word if word in self._known else None, start, end) for word, start, end in _tokens(typed)]


def plain_words(line: str) -> Iterator[str]:
    """The tokens of a line of text, left to right. A literal `<eos>` is no token of its own, and unknown."""
    for typed in line.split():
        if len(typed) > LONGEST_WORD:
            yield UNK
        else:
            yield from (UNK if word == EOS else word for word, _, _ in _tokens(folded(typed)))


def _tokens(typed: str) -> Iterator[tuple[str, int, int]]:
    """Each token of a typed word and where it stands."""
    for match in _pattern().finditer(typed.translate(PLAIN_MARKS)):
        token = match[0]
        if match.lastgroup == "hyphen":
            token = JOINERS[token]
        elif match.lastgroup == "word" and not token.isascii():
            token = unicodedata.normalize("NFC", token)
        yield token, *match.span()


@cache
def _pattern() -> re.Pattern[str]:
    letter, character = r"[^\W\d_]", r"[^\W_]"
    marks = f"[{_combining()}\u200c\u200d]"  # With the two invisible joiners, that of emoji among them.
    run = rf"{character}(?:{character}|{marks})*+"
    symbol = r"(?:[^\w\s]|_)"
    return re.compile(
        rf"""
        (?P<special> <unk> | <eos> | @[-,.]@)
        | (?P<word> (?:{letter}\.){{2,}} (?!{character})
                  | {run} (?:(?: '(?={letter}) | \.(?={character}) | (?<=\d)[,:](?=\d)) {run})*+)
        | (?P<hyphen> (?<={character}|{marks}) - (?={character}))
        | (?P<mark> ({symbol})\5*+ {marks}*+ (?:(?<=\u200d){symbol}{marks}*+)*+)
        """,
        re.VERBOSE,
    )


def _combining() -> str:
    """Every combining mark (Unicode category M), as ranges of a character class."""
    # Planes without any are left out: a tenth of the time.
    points = chain(range(0x300, 0x20000), range(0xE0100, 0xE0200))
    marks = [point for point in points if unicodedata.category(chr(point))[0] == "M"]
    firsts = [point for point, before in zip(marks, [-1, *marks], strict=False) if point != before + 1]
    lasts = [point for point, after in zip(marks, [*marks[1:], -1], strict=True) if point != after - 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))
