"""The chunked cross entropy against torch's own, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from training import cross_entropy
from training.cross_entropy import negative_log_likelihoods, tied_cross_entropy


def inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    hidden = torch.randn(rows, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(40, 6, dtype=dtype, requires_grad=True)
    bias = torch.randn(40, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(40, (rows,))


@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_loss_and_gradients_equal_torchs_over_any_number_of_chunks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "ROWS", 8)
    hidden, weight, bias, targets = inputs(rows, torch.float64)
    ours = tied_cross_entropy(hidden, weight, bias, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias), targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    for mine, reference in zip(
        torch.autograd.grad(3 * ours, [hidden, weight, bias]),
        torch.autograd.grad(3 * theirs, [hidden, weight, bias]),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-13, atol=1e-13)


def test_bfloat16_products_keep_float32_gradients_close() -> None:
    hidden, weight, bias, targets = inputs(64, torch.float32)
    ours = tied_cross_entropy(hidden.bfloat16(), weight, bias, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias), targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=0)
    mine, reference = (torch.autograd.grad(loss, weight)[0] for loss in (ours, theirs))
    assert mine.dtype == torch.float32
    assert (mine - reference).norm() < 0.02 * reference.norm()


def test_a_target_without_probability_gives_a_finite_loss() -> None:
    hidden = torch.tensor([[1000.0]])
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = tied_cross_entropy(hidden, weight, torch.zeros(2, requires_grad=True), torch.tensor([1]))
    assert torch.isfinite(loss)
    assert loss > 80


def test_likelihoods_without_gradients_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "ROWS", 8)
    hidden, weight, bias, targets = inputs(20, torch.float64)
    ours = negative_log_likelihoods(hidden, weight, bias, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    assert ours.dtype == torch.float32
    assert not ours.requires_grad
    torch.testing.assert_close(ours, theirs.float())
