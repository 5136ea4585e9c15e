"""How text is written in tokens: from one typed word to a corpus's tokens, by the convention of the corpus.

Boundary: strings and offsets. A convention is asked about one blank-delimited word at a time and sees the vocabulary
only as a set of words. Ids, whole texts and newlines belong to `model.vocabulary`; the way back from tokens to text
to `model.spelling`.

Two rules hold in every convention. A token of the corpus, typed as a word, is that token, so lines of the corpus come
back unchanged. Any other word is cut as the convention cuts it, and where that leaves a cut open (is the period of
"Inc." a full stop?) the vocabulary decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model.conventions.base import EOS, JOINERS, LONGEST_WORD, NUMBER, UNK, Convention, Piece, Splitter
from model.conventions.folding import FoldingSplitter, folded
from model.conventions.plain import PlainSplitter, plain_words
from model.conventions.ptb import PTBSplitter
from model.conventions.wikitext import WikitextSplitter

__all__ = [
    "EOS",
    "JOINERS",
    "LONGEST_WORD",
    "NUMBER",
    "UNK",
    "Convention",
    "Piece",
    "Splitter",
    "folded",
    "splitter",
    "words_of",
]


def splitter(convention: Convention, words: Collection[str]) -> Splitter:
    """The splitter of a convention for a vocabulary of `words`. A literal `<eos>` is never taken for the token."""
    known = frozenset(words) - {EOS}
    cut: dict[Convention, type[PTBSplitter | WikitextSplitter | PlainSplitter]] = {
        Convention.PTB: PTBSplitter,
        Convention.WIKITEXT: WikitextSplitter,
        Convention.PLAIN: PlainSplitter,
    }
    return FoldingSplitter(cut[convention](known), known)


def words_of(line: str, convention: Convention) -> Iterable[str]:
    """The tokens of a line of the corpus: what stands between blanks, or in plain text what its rule finds."""
    return plain_words(line) if convention is Convention.PLAIN else line.split()
