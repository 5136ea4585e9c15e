"""Words of the model as text, piece by piece while they come.

Boundary: ids of one vocabulary in, text out. How words are spelt is `model.spelling`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model.spelling import Speller
from model.vocabulary import Vocabulary


class Writer:
    """Writes what follows the ids `before`, each token when the next one is known.

    All pieces together are the part of `Vocabulary.detokenise(before + ids)` that belongs to `ids`: the blank between
    is in the first piece that is not empty, and quotes that `before` opened are known. `before` counts as the beginning
    of a line, so of a longer text it is best cut there.

    So `detokenise(before)` and the pieces joined are the whole text, but for one case: where `before` ends with a
    number and a single quote or an en dash that has a blank before it, and `ids` begin with a number. Only then may
    what follows change what stands before, by that blank: "5 –" and "7" are "5–7". (The Treebank's convention has no
    such marks, and no such case.) Without `ids` there is no text.
    """

    def __init__(self, vocabulary: Vocabulary, before: Sequence[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._speller = Speller(vocabulary.convention)
        for token_id in before:
            self._speller.push(vocabulary.word_of(token_id))
        # The last of them is on the page already, though its neighbour is only known with the first push.
        self._written = not self._speller.waits

    def push(self, token_id: int) -> str:
        """Take a token; the text that is certain now: that of the token before, or "" at first."""
        text = self._speller.push(self._vocabulary.word_of(token_id))
        if self._written:
            return text
        self._written = True
        return ""

    def ahead(self, words: Iterable[str]) -> list[str]:
        """The text of each of some words if they came next, and a line's end after them; nothing is taken."""
        return self._speller.ahead(words)

    def finish(self) -> str:
        """The text of the last token, as a line's end follows it. No token comes after this."""
        text = self._speller.finish()
        return text if self._written else ""
