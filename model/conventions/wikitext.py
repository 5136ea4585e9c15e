"""WikiText's way of cutting words: Moses tokens.

Boundary: that of `model.conventions`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

from model.conventions.base import JOINERS, PLAIN_MARKS, UNK, Piece


class WikitextSplitter:
    """Moses tokens, with the vocabulary's say where Moses asks a list of abbreviations or the word that follows.

    A typed word is a row of atoms: runs of letters and digits, of periods or of hyphens, single other characters that
    the vocabulary has, and runs of those that it has not. A token is one atom or several. Of all ways to cover the
    word, the one with the fewest unknown tokens is taken, and of those the one with the fewest tokens. Joiners stand
    alone; a known word may span any other boundary; an unknown token may span only what Moses never cuts (`_fused`).
    """

    # Accents belong to their letter; superscripts, subscripts and fractions are no digits here.
    _LETTER = r"[^\W_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f]"
    _ATOM = rf"<unk>|<eos>|<formula>|@[-,.]@|{_LETTER}(?:{_LETTER}|[\u0300-\u036f])*+|\.+|-+|[',%s]"
    _UNKNOWN = 1000
    """Cost of an unknown token in known ones: more of those than any real word holds."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._longest = max(map(len, known), default=0)
        atom = self._ATOM % re.escape("".join(sorted(word for word in known if len(word) == 1)))
        self._atoms = re.compile(rf"{atom}|(?:(?!{atom}).)++", re.DOTALL).findall
        compounds = [atoms for atoms in map(self._atoms, known) if len(atoms) > 1]
        self._openings = {(atoms[0], atoms[1]) for atoms in compounds}
        self._widest = max(map(len, compounds), default=1)

    def split(self, typed: str) -> list[Piece]:
        """See `Splitter`."""
        if typed in self._known:
            return [Piece(typed, 0, len(typed))]
        plain = typed.translate(PLAIN_MARKS)
        atoms: list[str] = self._atoms(plain)
        edges = [0, *accumulate(map(len, atoms))]
        joiners = [self._joiner(atoms, i) for i in range(len(atoms))]

        # For the first i atoms: the least cost to cover them, and the word and the first atom of the last token.
        cost: list[float] = [0, *[math.inf] * len(atoms)]
        last: list[tuple[str | None, int]] = [(None, 0)] * (len(atoms) + 1)
        unknown_cost, unknown_first = math.inf, 0
        for i in range(len(atoms)):
            if joiners[i]:
                cost[i + 1], last[i + 1], unknown_cost = cost[i] + 1, (joiners[i], i), math.inf
                continue
            # An unknown token that ends here begins here, or goes on from the atom before.
            if unknown_cost > cost[i] + self._UNKNOWN or not self._fused(atoms, i):
                unknown_cost, unknown_first = cost[i] + self._UNKNOWN, i
            if unknown_cost < cost[i + 1]:
                cost[i + 1], last[i + 1] = unknown_cost, (None, unknown_first)
            # A known token begins here and ends here or later.
            widest = self._widest if tuple(atoms[i : i + 2]) in self._openings else 1
            for stop in range(i + 1, min(i + widest, len(atoms)) + 1):
                if joiners[stop - 1]:
                    break
                word = self._word(plain[edges[i] : edges[stop]], typed[edges[i] : edges[stop]])
                if word and cost[i] + 1 < cost[stop]:
                    cost[stop], last[stop] = cost[i] + 1, (word, i)

        pieces = []
        stop = len(atoms)
        while stop:
            word, first = last[stop]
            pieces.append(Piece(word, edges[first], edges[stop]))
            stop = first
        return pieces[::-1]

    def _word(self, plain: str, typed: str) -> str | None:
        """The vocabulary's word for some atoms, if it has one."""
        if len(plain) > self._longest:
            return None
        forms = ["...", typed] if typed == "…" else [plain, typed]
        if not typed.isascii():
            forms.append(unicodedata.normalize("NFC", typed))
        elif not typed.strip("."):
            forms.append("...")
        return next((form for form in forms if form in self._known), None)

    def _joiner(self, atoms: Sequence[str], i: int) -> str | None:
        """The joiner that atom i is, between its neighbours, if it is one."""
        joiner = JOINERS.get(atoms[i])
        if joiner not in self._known or not 0 < i < len(atoms) - 1:
            return None
        left, right = atoms[i - 1], atoms[i + 1]
        if atoms[i] == "-":
            joins = (_is_word(left) or left in (UNK, ".")) and (_is_word(right) or right == UNK)
        else:
            joins = (left[-1].isdecimal() or left == UNK) and (right[0].isdecimal() or right == UNK)
        return joiner if joins else None

    def _fused(self, atoms: Sequence[str], i: int) -> bool:
        """Whether Moses leaves atom i with the one before it, as in "site.org" or after the apostrophe of "O'Hara"."""
        left, right = atoms[i - 1], atoms[i]
        before = atoms[i - 2] if i > 1 else ""
        after = atoms[i + 1] if i + 1 < len(atoms) else ""
        if right == ".":
            return _is_word(left) and _is_word(after)
        if left == ".":
            return _is_word(before) and _is_word(right)
        if left == "'":
            return before[-1:].isalpha() and right[0].isalpha()
        return _is_mark(right[0]) or _is_mark(left[-1])


def _is_word(atom: str) -> bool:
    return atom[:1].isalnum()


def _is_mark(character: str) -> bool:
    """Whether a character is a combining mark, which belongs to the letter before it."""
    return unicodedata.category(character)[0] == "M"
