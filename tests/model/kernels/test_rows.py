"""What tiles make of a row, in whatever order they are."""

from __future__ import annotations

import pytest
import torch

from model.kernels.rows import add_up
from tests.model.kernels.tensors import close


@pytest.mark.parametrize("tiles", [1, 7, 260])
def test_a_rows_log_sum_exp_is_that_in_float64_and_knows_no_order(tiles: int, device: torch.device) -> None:
    of_tiles = torch.randn(3, tiles, generator=torch.Generator().manual_seed(tiles)).to(device) * 5
    order = torch.randperm(tiles, generator=torch.Generator().manual_seed(1)).to(device)
    total, again = torch.empty(3, 1, device=device), torch.empty(3, 1, device=device)
    add_up(of_tiles, total).run()
    add_up(of_tiles[:, order].contiguous(), again).run()
    close(total, of_tiles.double().logsumexp(dim=1, keepdim=True))
    assert torch.equal(total, again)
