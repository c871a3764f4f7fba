"""A moving average of the weights, which restores better than any single step's."""

import copy

import torch
from torch import nn


class WeightAverage:
    """An averaged copy of a network, kept beside it.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the average forgets the initial weights at once
    and a short run has a useful one.

    Args:
        network: what to average; copied with its buffers, which are not averaged.
        decay: of the average, in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self._ours = list(self.network.parameters())
        self._theirs = list(network.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after step `step` (0 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._ours, self._theirs, 1.0 - decay)
