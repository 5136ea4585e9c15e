"""One text with its scores, as answers show it: whole, by token, by typed word, by line.

Boundary: arrangement and sums of scores that `app.scoring` computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from app.schemas import Score, TextScore, TokenScore, WordScore
from app.scoring import Likelihood, Scores, bits, likelihood
from model.vocabulary import Tokens, Vocabulary


@dataclass(frozen=True)
class Line:
    """One line of a text and the figures of its tokens, its `<eos>` with them where that was scored."""

    text: str
    likelihood: Likelihood


@dataclass(frozen=True)
class ScoredText:
    """A text, its tokens and their scores (arrays of one length)."""

    text: str
    tokens: Tokens
    scores: Scores

    @cached_property
    def likelihood(self) -> Likelihood:
        """Figures of the whole text."""
        return likelihood(self.scores.log_probabilities, self.tokens.unknown)

    def answer(
        self, vocabulary: Vocabulary, *, tokens: bool, words: bool, oov_penalty: float | None = None
    ) -> TextScore:
        """The answer for this text, with its tokens and words where asked; what was not asked stays unset."""
        details: dict[str, Any] = {}
        if tokens:
            details["tokens"] = list(self.token_scores(vocabulary))
        if words:
            details["words"] = [word for _, word in self.words()]
        if (entropies := self.scores.entropies) is not None:
            details["entropies"] = [bits(-entropy) for entropy in entropies.tolist()]
        return TextScore(**score_of(self.likelihood, oov_penalty).model_dump(exclude_unset=True), **details)

    def lines(self, eos_id: int) -> Iterator[tuple[int, Line]]:
        """The text's lines, each with its `<eos>`, and which word of `Tokens.words` their first is."""
        breaks = np.flatnonzero(self.tokens.ids == eos_id) + 1
        edges = sorted({0, *breaks.tolist(), len(self.tokens.ids)})
        for first, last in pairwise(edges):
            start, end = int(self.tokens.starts[first]), int(self.tokens.ends[last - 1])
            part = slice(first, last)
            figures = likelihood(self.scores.log_probabilities[part], self.tokens.unknown[part])
            yield int(self.tokens.words[first]), Line(self.text[start:end].rstrip("\r\n"), figures)

    def token_scores(self, vocabulary: Vocabulary) -> Iterator[TokenScore]:
        """Every token with its place in the text and its score."""
        columns = zip(
            self.tokens.ids.tolist(),
            self.tokens.starts.tolist(),
            self.tokens.ends.tolist(),
            self.scores.log_probabilities.astype(np.float64).tolist(),
            self.scores.ranks.tolist(),
            self.tokens.unknown.tolist(),
            strict=True,
        )
        for token_id, start, end, log_probability, rank, unknown in columns:
            yield TokenScore(
                token=vocabulary.word_of(token_id),
                start=start,
                end=end,
                log_probability=log_probability,
                surprisal=bits(log_probability),
                rank=rank,
                oov=unknown,
            )

    def words(self) -> Iterator[tuple[int, WordScore]]:
        """Each typed word, newline and scored end of the text, and which word of `Tokens.words` it is.

        Their log-probabilities sum to the text's. A typed word of no token is left out.
        """
        if not len(self.tokens.words):
            return
        firsts = np.flatnonzero(np.diff(self.tokens.words, prepend=-1))
        lasts = np.append(firsts[1:], len(self.tokens.words)) - 1
        sums = np.add.reduceat(self.scores.log_probabilities.astype(np.float64), firsts)
        unknown = np.logical_or.reduceat(self.tokens.unknown, firsts)
        starts, ends = self.tokens.starts[firsts].tolist(), self.tokens.ends[lasts].tolist()
        counts = (lasts - firsts + 1).tolist()
        indices = self.tokens.words[firsts].tolist()
        columns = zip(indices, starts, ends, counts, sums.tolist(), unknown.tolist(), strict=True)
        for index, start, end, count, log_probability, oov in columns:
            yield (
                index,
                WordScore(
                    word=self.text[start:end],
                    start=start,
                    end=end,
                    token_count=count,
                    log_probability=log_probability,
                    surprisal=bits(log_probability),
                    oov=oov,
                ),
            )


def score_of(figures: Likelihood, oov_penalty: float | None = None) -> Score:
    """Figures as an answer; without a penalty there is no score, and it stays unset."""
    ranked_by = {} if oov_penalty is None else {"score": figures.score(oov_penalty)}
    return Score(
        perplexity=figures.perplexity,
        perplexity_without_oov=figures.perplexity_without_oov,
        log_likelihood=figures.log_likelihood,
        token_count=figures.token_count,
        oov_count=figures.oov_count,
        **ranked_by,
    )
