"""Drawing words: which may be drawn, which one is, and how often."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.sampling import Sampler
from tests.app.fakes import Floats, Ids

NONE: Ids = np.empty(0, np.int32)
ROUNDING = 1e-9
"""How near to an edge two ways to add up may disagree. Next to what is tested, such places are as good as never met."""


def row(weights: list[float]) -> Floats:
    """Log-probabilities of words with these weights."""
    values = np.array(weights, np.float64)
    return np.asarray(np.log(values / values.sum()), np.float32)


def possible(
    likely: Floats, temperature: float, top_k: int | None, top_p: float, banned: set[int]
) -> tuple[dict[int, float], float]:
    """Probability of each id that may be drawn, by id: the definition, step by step.

    Also how near the share of some first words comes to `top_p`.
    """
    ids = sorted((i for i in range(len(likely)) if i not in banned), key=lambda i: (-likely[i], i))[:top_k]
    weights = [math.exp((float(likely[i]) - float(likely[ids[0]])) / temperature) for i in ids]
    total = math.fsum(weights)
    shares = [reached / total for reached in accumulate(weights)]
    count = 1 + sum(share < top_p for share in shares[:-1])
    kept = dict(sorted(zip(ids[:count], weights, strict=False)))
    left = math.fsum(kept.values())
    return {token_id: weight / left for token_id, weight in kept.items()}, min(
        (abs(share - top_p) for share in shares[:-1]), default=1.0
    )


def drawn_by(uniform: float, probabilities: dict[int, float]) -> int:
    """The id at a place between 0 and 1 along the probabilities."""
    reached = 0.0
    for token_id, probability in probabilities.items():
        reached += probability
        assume(abs(reached - uniform) > ROUNDING)
        if reached > uniform:
            return token_id
    raise AssertionError("a place beyond all words")


weights = st.sampled_from([1e-30, 1e-9, 0.01, 0.1, 0.3, 1.0, 2.5]) | st.floats(0.001, 5)


@given(
    values=st.lists(weights, min_size=3, max_size=60),
    temperature=st.sampled_from([0.05, 0.3, 1.0, 5.0]) | st.floats(0.01, 5),
    top_k=st.none() | st.integers(1, 70),
    top_p=st.sampled_from([1e-9, 0.1, 0.47, 0.93, 1.0]) | st.floats(0.001, 1),
    banned=st.sets(st.integers(0, 59), max_size=5),
    seed=st.integers(0, 2**63 - 1),
)
def test_the_word_at_the_uniform_number_is_drawn_from_those_possible(
    values: list[float], temperature: float, top_k: int | None, top_p: float, banned: set[int], seed: int
) -> None:
    likely = row(values)
    banned &= set(range(1, len(values)))
    expected, nearest = possible(likely, temperature, top_k, top_p, banned)
    assume(nearest > ROUNDING)
    sampler = Sampler(temperature, top_k, top_p, seed)
    uniforms = np.random.Generator(np.random.PCG64(seed)).random(3).tolist()
    for uniform in uniforms:  # One number a draw.
        assert sampler.sample(likely, np.array(sorted(banned), np.int32)) == drawn_by(uniform, expected)
    assert likely.tolist() == row(values).tolist()


@pytest.mark.parametrize("temperature", [0.7, 5.0])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 0.999])
def test_words_of_a_large_vocabulary_are_those_of_a_full_sort(temperature: float, top_p: float) -> None:
    random = np.random.default_rng(4)
    # Values on a grid, so that many words are equally likely where the share is reached.
    likely = row(np.exp(np.round(random.normal(0, 2, 5000), 1)).tolist())
    expected, _ = possible(likely, temperature, None, top_p, {7})
    ids, edges = list(expected), np.cumsum(list(expected.values()))
    uniforms = np.random.Generator(np.random.PCG64(9)).random(300)
    sampler = Sampler(temperature, None, top_p, 9)
    drawn = [sampler.sample(likely, np.array([7], np.int32)) for _ in uniforms]
    assert drawn == [ids[place] for place in np.searchsorted(edges, uniforms, side="right")]


def test_of_equally_likely_words_those_with_the_lowest_ids_are_possible() -> None:
    likely = row([1.0] * 3000)

    def drawn(top_k: int | None, top_p: float) -> list[int]:
        sampler = Sampler(1.0, top_k, top_p, 2)
        return [sampler.sample(likely, NONE) for _ in range(600)]

    # 300 and 2,700 words are possible; in 600 draws one from the last 30th part is as good as certain.
    assert 290 <= max(drawn(300, 1.0)) < 300
    assert 2600 <= max(drawn(None, 0.9)) <= 2700
    assert set(drawn(2, 1.0)) == {0, 1}
    assert set(drawn(None, 1e-12)) == {0}


def test_temperature_zero_takes_the_likeliest_and_ties_by_lower_id() -> None:
    likely = row([1, 3, 3, 2])
    assert [Sampler(0, None, 1.0, seed).sample(likely, NONE) for seed in range(5)] == [1] * 5
    assert Sampler(0, None, 1.0, 0).sample(likely, np.array([1, 2], np.int32)) == 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_words_come_as_often_as_they_are_likely_at_a_temperature(temperature: float) -> None:
    draws = 20_000
    exact = np.array([1, 2, 3, 4]) ** (1 / temperature)
    exact /= exact.sum()
    sampler = Sampler(temperature, None, 1.0, 5)
    counts = np.bincount([sampler.sample(row([1, 2, 3, 4]), NONE) for _ in range(draws)], minlength=4) / draws
    # Five standard deviations of the most uncertain count.
    assert np.abs(counts - exact).max() < 5 * 0.5 / math.sqrt(draws)


class Always:
    """A generator whose every uniform number is the same."""

    def __init__(self, uniform: float) -> None:
        self._uniform = uniform

    def random(self) -> float:
        return self._uniform


@pytest.mark.parametrize(("uniform", "drawn"), [(0.0, 2), (1 - 2**-53, 3994)])
@pytest.mark.parametrize("top_k", [None, 4000])
@pytest.mark.parametrize("top_p", [1.0, 1 - 2**-53])
def test_banned_words_are_never_drawn_not_even_at_an_edge_or_by_rounding(
    uniform: float, drawn: int, top_k: int | None, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    banned = np.array([0, 1, 3990, *range(3995, 4000)], np.int32)
    for _ in range(30):
        # Those at the ends are likely, so that no `top_p` leaves them out.
        likely = row([1.0, 1.0, 1.0, *np.exp(random.normal(0, 3, 3991)).tolist(), *[1.0] * 6])
        sampler = Sampler(1.0, top_k, top_p, 1)
        monkeypatch.setattr(sampler, "_random", Always(uniform))
        assert sampler.sample(likely, banned) == drawn


def test_without_the_likeliest_the_next_likeliest_is_the_only_one_of_top_k_1() -> None:
    likeliest = Sampler(1.0, 1, 1.0, 1)
    assert {likeliest.sample(row([1, 8, 2, 4]), np.array([1], np.int32)) for _ in range(20)} == {3}


def test_a_seed_draws_the_same_words_and_another_draws_others() -> None:
    likely = row(list(range(1, 200)))

    def draw(seed: int) -> list[int]:
        sampler = Sampler(1.0, None, 0.95, seed)
        return [sampler.sample(likely, NONE) for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert draw(2**63 - 1) == draw(2**63 - 1)


def test_all_settings_take_one_uniform_number_a_draw() -> None:
    likely = row(list(range(1, 200)))
    settings = [(0.0, None, 1.0), (1.0, None, 1.0), (0.5, 3, 1.0), (2.0, None, 0.4), (1.0, 20, 0.9)]
    states = []
    for temperature, top_k, top_p in settings:
        sampler = Sampler(temperature, top_k, top_p, 6)
        for _ in range(10):
            sampler.sample(likely, NONE)
        states.append(sampler._random.bit_generator.state)
    assert states == [states[0]] * len(settings)


def test_a_tiny_temperature_is_the_arg_max_and_warns_of_nothing() -> None:
    for top_p in (0.5, 1.0):
        assert Sampler(1e-308, None, top_p, 1).sample(row([1, 5, 2]), np.array([2], np.int32)) == 1
