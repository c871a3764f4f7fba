"""Bytes on the device to what the network takes: frames in [0, 1] and normalized voxels."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NUM_COUNTS = 65536
"""Stored counts are uint8 or uint16."""


class VoxelNormalizer(nn.Module):
    """Spike counts to network input, by looking each count up in a table of 65,536 values.

    Args:
        table: (65536,) float32, the normalized value of every count, from `pipeline.stats.Normalization.table()`.

    Raises:
        ValueError: the table has another shape or holds values that are not finite.
    """

    table: Tensor

    def __init__(self, table: npt.NDArray[np.float32]) -> None:
        super().__init__()
        if table.shape != (NUM_COUNTS,) or not np.isfinite(table).all():
            raise ValueError(f"table {table.shape} is not {NUM_COUNTS} finite values, one for each count")
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)), persistent=False)

    def forward(self, counts: Tensor) -> Tensor:
        """Normalize uint8 or uint16 counts of any shape, as float32 of the same shape.

        Raises:
            ValueError: counts of another type.
        """
        if counts.dtype not in (torch.uint8, torch.uint16):
            raise ValueError(f"counts are uint8 or uint16, not {counts.dtype}")
        return self.table.index_select(0, counts.reshape(-1).int()).view(counts.shape)


def to_unit(frames: Tensor) -> Tensor:
    """8-bit frames of any shape as float32 in [0, 1]."""
    return frames.to(torch.float32).div_(255.0)
