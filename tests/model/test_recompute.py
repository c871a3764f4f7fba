import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from model.recompute import Run, keep, recompute


def noisy(x: Tensor, factor: float) -> Tensor:
    return (x * torch.rand_like(x)).exp().sin() * factor


def through(run: Run) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Result, gradient, and the tensors that were kept for it."""
    torch.manual_seed(0)
    x, kept = torch.linspace(-1, 1, 5, requires_grad=True), []
    with saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        out = run(noisy, x, 3.0)
    out.sum().backward()
    return out, x.grad, kept


def test_recomputes_the_same_random_numbers_from_its_arguments_alone() -> None:
    (out, grad, kept), (again, same, arguments) = through(keep), through(recompute)
    assert torch.equal(out, again) and torch.equal(grad, same)
    assert len(kept) == 3  # random factors for the product, its exponential for itself, and for the sine
    assert all(torch.equal(x, torch.linspace(-1, 1, 5)) for x in arguments)


@pytest.mark.parametrize("run", [keep, recompute])
def test_without_gradients_it_is_a_call(run: Run) -> None:
    calls = []
    with torch.no_grad():
        assert run(lambda *numbers: calls.append(numbers) or sum(numbers), 1, 2) == 3
    assert calls == [(1, 2)]
