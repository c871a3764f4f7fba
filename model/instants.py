"""What tells the network which instant of each exposure to restore.

An instant is a position in the exposure, from 0, its beginning, to 1, its end. Beside the voxel grids of a frame the
network gets their mean around the instant and the instant itself. The first is evidence where it is needed: which
edges were where just then. With the second, layers that see all bins can weigh them by their distance to the instant.
"""

import torch
from torch import Tensor

INSTANT_CHANNELS = 2
"""What `with_instants` adds to the bins."""
WINDOW = 0.16
"""Half width of the triangular window around an instant, as a part of the exposure; at least one bin."""


def with_instants(voxels: Tensor, instants: Tensor) -> Tensor:
    """Voxel grids and what tells their instants, (B, T, K + INSTANT_CHANNELS, H, W).

    Args:
        voxels: (B, T, K, H, W).
        instants: (B, T) from 0 to 1.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if instants.shape != voxels.shape[:2]:
        raise ValueError(
            f"instants {tuple(instants.shape)} do not fit voxels {tuple(voxels.shape)}: one a frame"
        )
    instants = instants.to(voxels)
    around = torch.einsum("btk,btkhw->bthw", weights(instants, voxels.shape[2]), voxels)
    where = (2 * instants - 1)[..., None, None].expand_as(around)
    return torch.cat([voxels, torch.stack([around, where], dim=2)], dim=2)


def weights(instants: Tensor, num_bins: int) -> Tensor:
    """The share (..., K) of every bin in the mean around `instants` (...): a triangle over the middles of the bins."""
    middles = (torch.arange(num_bins, device=instants.device, dtype=instants.dtype) + 0.5) / num_bins
    far = (middles - instants[..., None]).abs() / max(WINDOW, 1 / num_bins)
    triangle = (1 - far).clamp(min=0)
    return triangle / triangle.sum(dim=-1, keepdim=True)
