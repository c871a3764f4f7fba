"""A moving average of the weights, which restores better than any single step's."""

import copy

import torch
from torch import Tensor, nn

from model.sharding import own_rows


class WeightAverage:
    """An averaged copy of a network, kept beside it.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the average forgets the initial weights at once
    and a short run has a useful one.

    Args:
        network: what to average; copied with its buffers, which are not averaged.
        decay: of the average, in (0, 1).

    Both networks may be sharded, in the same way, before the first update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self._theirs = network
        self._rows: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after step `step` (0 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._rows is None:
            ours, theirs = (
                [own_rows(parameter) for parameter in network.parameters()]
                for network in (self.network, self._theirs)
            )
            self._rows = ours, theirs
        ours, theirs = self._rows
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)
