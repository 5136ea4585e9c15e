"""Which sizes the persistent kernel takes, and how it cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.kernels.persistent_plan import SHARED_BYTES, Plan, Residence, plan

HOPPER = 132
"""Multiprocessors of an H100 or H200: sixteen clusters of 8 blocks, eight of 16."""


@pytest.mark.parametrize(
    ("width", "cluster", "residence", "threads", "columns", "weight_registers", "shared_bytes"),
    [
        # 2 x (2 x 8 x 352 + 11 x (16 x 352 + 8)) + 16
        (350, 8, "registers", 352, 352, 88, 135_360),
        # The smallest: a warp a block, of which one output is not padding.
        (1, 8, "registers", 32, 32, 8, 2_080),
        (160, 8, "registers", 160, 160, 40, 30_816),
        # The widest groups of each way to hold the weights, and those one wider.
        (384, 8, "registers", 384, 384, 96, 159_952),
        (385, 16, "registers", 224, 448, 112, 114_816),
        (512, 16, "registers", 256, 512, 128, 147_600),
        (513, 16, "shared", 288, 576, 0, 184_480),
        (640, 16, "shared", 320, 640, 0, 225_456),
    ],
)
def test_a_group_gets_the_first_way_to_hold_its_weights_that_fits(
    width: int,
    cluster: int,
    residence: Residence,
    threads: int,
    columns: int,
    weight_registers: int,
    shared_bytes: int,
) -> None:
    chosen = plan(width, 4, 1, HOPPER)
    assert chosen == Plan(width, cluster, 8, residence)
    assert (chosen.threads, chosen.columns) == (threads, columns)
    assert (chosen.weight_registers, chosen.shared_bytes) == (weight_registers, shared_bytes)


def test_a_group_too_wide_for_sixteen_blocks_has_no_plan() -> None:
    assert plan(641, 1, 1, HOPPER) is None


@pytest.mark.parametrize(
    ("width", "groups", "batch", "rows"),
    [
        (350, 4, 1, 8),
        (350, 4, 32, 8),  # 4 groups x 4 clusters of 8 rows are the 16 that run at once
        (350, 4, 33, 16),
        (350, 1, 128, 8),
        (350, 1, 129, 16),
        (500, 2, 32, 8),  # 8 clusters of 16 blocks run at once
        (500, 2, 33, 16),
        (640, 2, 67, 8),  # no place for h of 16 rows
    ],
)
def test_a_cluster_takes_sixteen_rows_where_clusters_of_eight_would_queue(
    width: int, groups: int, batch: int, rows: int
) -> None:
    chosen = plan(width, groups, batch, HOPPER)
    assert chosen is not None
    assert chosen.rows == rows


@given(st.integers(1, 640), st.integers(1, 8), st.integers(1, 67), st.sampled_from([78, 114, HOPPER]))
def test_every_plan_fits_and_makes_every_output_once(width: int, groups: int, batch: int, multiprocessors: int) -> None:
    chosen = plan(width, groups, batch, multiprocessors)
    assert chosen is not None
    assert chosen.fits
    assert chosen.threads <= 1024
    assert chosen.shared_bytes <= SHARED_BYTES
    made = [
        (rank * chosen.warps + warp) * 4 + unit
        for rank in range(chosen.cluster)
        for warp in range(chosen.warps)
        for unit in range(4)
    ]
    assert made == list(range(chosen.columns))
    assert width <= chosen.columns < width + 4 * chosen.cluster
