"""A trained network with its normalization inside, and what it takes: all that leaves this code behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.restorer import Restorer
from pipeline.errors import UsageError
from pipeline.stats import Normalization

INPUTS = ("blurry", "voxels", "instants")
OUTPUT = "restored"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipShape:
    """Sizes of a clip: frames, rows and columns of its RGB frames, and of its voxel grids bins and scale.

    Attributes:
        num_bins: None for a network that takes no spikes.
        scale: RGB pixels per spike pixel, along a side.
        takes_instants: whether the network is told which instant of each exposure to restore.

    Raises:
        UsageError: the frames are not a whole number of spike pixels.
    """

    frames: int
    height: int
    width: int
    num_bins: int | None
    scale: int
    takes_instants: bool = False

    def __post_init__(self) -> None:
        if self.height % self.scale or self.width % self.scale:
            sides = (max(side // self.scale, 1) * self.scale for side in (self.height, self.width))
            raise UsageError(
                f"size {self.height}x{self.width} is not a multiple of the {self.scale} RGB pixels of a spike pixel",
                f"--size {'x'.join(map(str, sides))}",
            )

    @property
    def blurry(self) -> tuple[int, ...]:
        """(1, T, 3, H, W)."""
        return 1, self.frames, 3, self.height, self.width

    @property
    def voxels(self) -> tuple[int, ...] | None:
        """(1, T, K, h, w), or None."""
        if self.num_bins is None:
            return None
        return 1, self.frames, self.num_bins, self.height // self.scale, self.width // self.scale

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        shapes = {"blurry": self.blurry}
        if self.voxels is not None:
            shapes["voxels"] = self.voxels
        if self.takes_instants:
            shapes["instants"] = self.blurry[:2]
        return shapes


class Standalone(nn.Module):
    """From camera values to camera values.

    Args:
        network: called with blurry frames and normalized voxel grids.
        normalization: of its voxel grids; None for a network that takes none.
    """

    def __init__(self, network: nn.Module, normalization: Normalization | None) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization

    def forward(self, blurry: Tensor, voxels: Tensor | None = None, instants: Tensor | None = None) -> Tensor:
        """Restore frames, float32 (1, T, 3, H, W) in [0, 1].

        Args:
            blurry: float32 (1, T, 3, H, W), RGB in [0, 1].
            voxels: float32 (1, T, K, h, w), spike counts as they are; None for a network that takes none.
            instants: float32 (1, T), what to restore of each exposure, from 0 to 1; None for a network that takes none.
        """
        if voxels is not None and self.normalization is not None:
            counts = torch.log1p(voxels) if self.normalization.transform == "log1p" else voxels
            voxels = (counts - self.normalization.mean) / self.normalization.std
        told = () if instants is None else (instants,)
        return self.network(blurry, voxels, *told).clamp(0, 1)


def standalone(restorer: Restorer) -> Standalone:
    """A restorer's network as a program of its own."""
    return Standalone(restorer.network, restorer.info.normalization if restorer.takes_spikes else None)


def description(restorer: Restorer, shape: ClipShape, version: str) -> dict[str, Any]:
    """What is stored in an exported program: how to call it, and where it comes from; plain values.

    Args:
        version: of this program.
    """
    info, used = restorer.info, restorer.info.normalization if restorer.takes_spikes else None
    meanings: Mapping[str, str] = {
        "blurry": "RGB frames in order of time, 0 black and 1 white",
        "voxels": "spikes counted in each of K equal parts of a frame's exposure, rows upright; normalized inside",
        "instants": "which instant of each exposure to restore, from 0, its beginning, to 1, its end",
    }
    return {
        "made_by": f"spk {version}, torch {torch.__version__}",
        "checkpoint": {"name": info.path.name, "step": info.step, "digest": info.header.get("digest")},
        "store": dict(info.store),
        "num_bins": shape.num_bins,
        "scale": shape.scale,
        "normalization": None
        if used is None
        else {"transform": used.transform, "mean": used.mean, "std": used.std},
        "inputs": {
            name: {"shape": list(sizes), "dtype": "float32", "meaning": meanings[name]}
            for name, sizes in shape.inputs.items()
        },
        "outputs": {
            OUTPUT: {
                "shape": list(shape.blurry),
                "dtype": "float32",
                "meaning": "sharp RGB frames, within [0, 1]",
            }
        },
    }
