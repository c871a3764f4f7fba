import math

import pytest
import torch
from torch import nn

from model.training.layer_watch import LayerStats, LayerWatch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Linear(2, 1, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def learn(every: int, steps: int) -> tuple[Net, list[tuple[int, LayerStats]], list[dict[str, torch.Tensor]]]:
    """Some steps of AdamW on a fixed gradient; what was shown, and the weights before each step."""
    torch.manual_seed(0)
    network, shown, weights = Net(), [], []
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    watch = LayerWatch(network, optimizer, every, lambda step, stats: shown.append((step, stats)))
    for step in range(steps):
        weights.append({name: p.detach().clone() for name, p in network.named_parameters()})
        for parameter in (*network.first.parameters(), *network.second.parameters()):
            parameter.grad = torch.full_like(parameter, step + 1.0)
        watch.before_clipping(step)
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        watch.after_update(step)
        optimizer.zero_grad()
    return network, shown, weights


def test_looks_when_it_is_due_and_groups_by_part() -> None:
    _, shown, _ = learn(every=3, steps=7)
    assert [step for step, _ in shown] == [3, 6]
    stats = shown[0][1]
    assert {part: len(values) for part, values in stats.grad_norms.items()} == {"first": 2, "second": 1}
    assert stats.grad_norms.keys() == stats.updates.keys()


def test_gradient_norms_are_those_before_clipping() -> None:
    _, shown, _ = learn(every=2, steps=2)
    assert shown[0][1].grad_norms["second"] == [pytest.approx(2 * math.sqrt(2))]
    assert shown[0][1].grad_norms["first"] == [
        pytest.approx(2 * math.sqrt(6)),
        pytest.approx(2 * math.sqrt(2)),
    ]


def test_updates_are_what_the_weights_really_moved_over_their_norm() -> None:
    network, shown, weights = learn(every=4, steps=4)
    for name, parameter in network.first.named_parameters():
        moved = (parameter - weights[3][f"first.{name}"]).norm() / parameter.norm()
        found = shown[0][1].updates["first"][0 if name == "weight" else 1]
        assert found == pytest.approx(moved.item(), rel=1e-4)


def test_never_looks_at_zero() -> None:
    assert learn(every=0, steps=3)[1] == []


def test_a_step_without_gradients_shows_nothing() -> None:
    network = Net()
    watch = LayerWatch(
        network, torch.optim.AdamW(network.parameters()), 1, lambda *seen: pytest.fail(str(seen))
    )
    watch.before_clipping(0)
    watch.after_update(0)
