"""How much work goes into a call of the engine, by hand-worked times."""

from __future__ import annotations

import pytest

from app.pace import Pace


def test_a_call_that_takes_too_long_lets_fewer_rows_into_the_next() -> None:
    pace = Pace(0.004)
    pace.rows = {1: 40.0}
    pace.learn(1, 40, 0.008)
    assert pace.rows[1] == pytest.approx(28.0)
    pace.learn(1, 28, 0.002)
    assert pace.rows[1] == pytest.approx(30.8)
    pace.learn(1, 3, 0.002)
    assert pace.rows[1] == pytest.approx(30.8)
    for _ in range(50):
        pace.learn(1, 1, 1.0)
    assert pace.rows[1] == 1.0


def test_a_length_whose_single_row_takes_too_long_is_left_out_but_for_one_step() -> None:
    pace = Pace(0.004)
    for length, seconds in ((32, 0.006), (16, 0.004), (4, 0.001), (1, 0.005), (0, 0.009)):
        pace.begin(length, seconds)
    assert pace.rows == {16: 1.0, 4: 4.0, 1: 1.0, 0: 1.0}


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ([0, 7], 0),
        ([3, 40], 1),
        ([40], 16),
        ([40] * 8, 16),  # As many as there is room for.
        ([40] * 9, 4),  # One too many for 16 steps.
        ([40, *[9] * 20], 16),  # The others cannot go as far: they are no reason to stop early.
    ],
)
def test_a_call_is_the_longest_that_leaves_room_for_all_that_can_go_as_far(left: list[int], expected: int) -> None:
    pace = Pace(0.004)
    pace.rows = {0: 50.0, 1: 40.0, 4: 20.0, 16: 8.0}
    assert pace.length(left) == expected
