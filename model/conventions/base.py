"""What every convention is made of: its name, the tokens with a meaning of their own, and how a word is cut.

Boundary: strings and offsets. A convention is asked about one blank-delimited word at a time and sees the vocabulary
only as a set of words.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

EOS = "<eos>"
UNK = "<unk>"
NUMBER = "N"
"""What every number is under the PTB convention."""
JOINERS = {"-": "@-@", ",": "@,@", ".": "@.@"}
"""How WikiText writes a mark within a word or a number."""

LONGEST_WORD = 1000
"""Characters of a typed word beyond which it is one unknown token: no word is that long, and each of its marks would
be a token."""

PLAIN_MARKS = str.maketrans("‘’‚‛`´“”„‟«»‐‑", "''''''" + '""""""' + "--")
"""Characters that editors put for plain ones. One for one, so that offsets stay."""


class Convention(StrEnum):
    """The way of writing tokens that a vocabulary follows."""

    PTB = "ptb"
    """Penn Treebank: lower case, `N` for numbers, clitics apart (do n't), no punctuation."""
    WIKITEXT = "wikitext"
    """WikiText: Moses tokens, case and punctuation kept, joiners within words and numbers."""
    PLAIN = "plain"
    """Anyone's own text: words and punctuation by the rule of `model.conventions.plain`, case kept."""


class Piece(NamedTuple):
    """Part `start:end` of a typed word and the vocabulary's word it is: None where the vocabulary has none."""

    word: str | None
    start: int
    end: int


class Splitter(Protocol):
    """A convention's way of cutting words."""

    def split(self, typed: str) -> list[Piece]:
        """Tokens of one typed word (not empty, no blanks), left to right, in time linear in its length."""
