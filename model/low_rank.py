"""Linear maps that can be given a low-rank update to learn, beside weights that stay as they are (LoRA).

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UPDATE = "lora"
"""The child of a linear map that holds its update; no other module has this name."""


class LowRankUpdate(nn.Module):
    """scale * up down x, zero until `up` has learned something.

    Args:
        linear: the map that is updated; gives widths, device and dtype.
        rank: width in between.
        scale: of the update.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, **like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as a linear map's own weights start

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(F.linear(x, self.down) * self.scale, self.up)


class Linear(nn.Linear):
    """W x + b, and once it is adapted + scale * up down x. Its own parameters keep their names in the state dict."""

    lora: LowRankUpdate | None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.lora = None

    def adapt(self, rank: int, scale: float) -> None:
        """Add an update that changes nothing yet."""
        self.lora = LowRankUpdate(self, rank, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = super().forward(x)
        return y if self.lora is None else y + self.lora(x)


def is_update(name: str) -> bool:
    """Whether a parameter belongs to an update, by its dotted name."""
    return UPDATE in name.split(".")
