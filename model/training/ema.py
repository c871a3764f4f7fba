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
        network: what to average; copied with its buffers, which are not averaged. Parameters that do not learn
            (without `requires_grad`) are shared with the copy instead.
        decay: of the average, in (0, 1).

    Both networks may be sharded, in the same way, before the first update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        shared = {
            id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad
        }
        self._names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        self._theirs = network
        self.network = copy.deepcopy(network, shared).requires_grad_(False).eval()
        self.decay = decay
        self._rows: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after step `step` (0 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._rows is None:
            self._rows = self._rows_of(self.network), self._rows_of(self._theirs)
        ours, theirs = self._rows
        torch._foreach_lerp_(ours, theirs, 1.0 - decay)

    def _rows_of(self, network: nn.Module) -> list[Tensor]:
        return [own_rows(value) for name, value in network.named_parameters() if name in self._names]
