"""A moving average of the weights, which restores better than any single step's."""

import copy

import torch
from torch import nn


class WeightAverage:
    """An averaged copy of a network, kept beside it.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the average forgets the initial weights at once
    and a short run has a useful one.

    Args:
        network: what to average; copied with its buffers, which are not averaged. Parameters that do not learn
            (without `requires_grad`) are shared with the copy instead.
        decay: of the average, in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        shared = {
            id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad
        }
        self._theirs = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.network = copy.deepcopy(network, shared).requires_grad_(False).eval()
        self.decay = decay
        self._ours = [parameter for parameter in self.network.parameters() if id(parameter) not in shared]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after step `step` (0 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._ours, self._theirs, 1.0 - decay)
