"""The n-gram model is that of Chen and Goodman's formulas, followed word by word."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from benchmarks.kneser_ney import Floats, Ids, KneserNey
from model.errors import CorpusError

Gram = tuple[str, ...]

SIZE = 300
EOS = 3
UNSEEN = SIZE - 1


class Reference:
    """The recursive definition over dictionaries; `<s>` and `</s>` are words of their own."""

    def __init__(self, lines: list[list[str]], vocabulary: int, order: int) -> None:
        self.vocabulary = vocabulary
        padded = [["<s>", *line, "</s>"] for line in lines]
        raw = Counter(
            tuple(line[i : i + n]) for line in padded for n in range(1, order + 1) for i in range(len(line) - n + 1)
        )
        before: defaultdict[Gram, set[str]] = defaultdict(set)
        for gram in raw:
            before[gram[1:]].add(gram[0])
        self.counts: dict[Gram, int] = {
            gram: count if len(gram) == order or gram[0] == "<s>" else len(before[gram])
            for gram, count in raw.items()
            if gram != ("<s>",)
        }
        of_length = {n: [c for gram, c in self.counts.items() if len(gram) == n] for n in range(1, order + 1)}
        self.discounts = {n: self._discounts(counts) for n, counts in of_length.items()}
        self.totals: Counter[Gram] = Counter()
        self.kept: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in self.counts.items():
            self.totals[gram[:-1]] += count
            self.kept[gram[:-1]] += self.discounts[len(gram)][min(count, 3)]

    @staticmethod
    def _discounts(counts: list[int]) -> dict[int, float]:
        n1, n2, n3, n4 = (counts.count(times) for times in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return {1: 1 - 2 * y * n2 / n1, 2: 2 - 3 * y * n3 / n2, 3: 3 - 4 * y * n4 / n3}

    def probability(self, context: Gram, word: str) -> float:
        """Of one word after a context of at most order - 1 words."""
        shorter = self.probability(context[1:], word) if context else 1 / self.vocabulary
        if context not in self.totals:
            return shorter
        count = self.counts.get((*context, word), 0)
        discount = self.discounts[len(context) + 1][min(count, 3)] if count else 0
        return (count - discount + self.kept[context] * shorter) / self.totals[context]


def random_ids(lines: int, seed: int) -> Ids:
    """Lines of 0 to 11 words, some far more frequent than others; every second word is one of few after the last."""
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    for _ in range(lines):
        last = 0
        for place in range(generator.integers(12)):
            last = int((generator.zipf(1.5) + (7 * last if place % 2 else 0)) % (UNSEEN - 1))
            ids.append(last + (last >= EOS))
        ids.append(EOS)
    return np.array(ids, np.int32)


def lines_of(ids: Ids) -> list[list[str]]:
    text = " ".join("\n" if token == EOS else str(token) for token in ids.tolist())
    return [line.split() for line in text.split("\n")[:-1]]


def rows(model: KneserNey, ids: Ids) -> Floats:
    return np.concatenate(list(model.rows(ids)))


@pytest.mark.parametrize("order", [2, 3, 5])
def test_every_word_at_every_place_has_the_probability_that_the_recursive_formula_gives(order: int) -> None:
    ids = random_ids(600, seed=1)
    reference = Reference(lines_of(ids), SIZE, order)
    read = np.append(random_ids(12, seed=2), [UNSEEN, 1, 1, EOS]).astype(np.int32)
    found = np.exp(rows(KneserNey(ids, EOS, SIZE, order), read))
    place = 0
    for line in lines_of(read):
        words = ["<s>", *line]
        for end in range(1, len(words) + 1):
            context = tuple(words[max(0, end - order + 1) : end])
            expected = [reference.probability(context, "</s>" if token == EOS else str(token)) for token in range(SIZE)]
            np.testing.assert_allclose(found[place], expected, rtol=2e-5)
            place += 1
    assert place == len(read) == len(found)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_text_without_the_counts_that_discounts_are_made_of_is_refused() -> None:
    with pytest.raises(CorpusError, match="give more text"):
        KneserNey(np.array([1, 2, EOS], np.int32), EOS, SIZE, 2)
