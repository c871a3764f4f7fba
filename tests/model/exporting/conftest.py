"""Networks to export: one that is traced in a moment, and a real one that takes seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.checkpoint import CheckpointInfo
from model.network import NetworkConfig, build_network
from model.normalize import VoxelNormalizer
from model.parallel import Parallel
from model.restorer import Restorer
from model.vrt import Stage
from pipeline.stats import Normalization

NORMALIZATION = Normalization(num_bins=4, transform="log1p", mean=0.3, std=0.5, num_values=9)


class Stub(nn.Module):
    """blurry + a map of the mean of the spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)

    def forward(self, blurry: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Of the same size."""
        if voxels is None:
            return blurry + self.conv.bias.view(-1, 1, 1)
        return blurry + self.conv(voxels.mean(2, keepdim=True).flatten(0, 1)).unflatten(0, blurry.shape[:2])


@pytest.fixture
def restorer() -> Callable[..., Restorer]:
    """Make a restorer of a network, without a checkpoint; it takes spikes unless told otherwise."""

    def make(network: nn.Module | None = None, *, takes_spikes: bool = True, **changes: Any) -> Restorer:
        torch.manual_seed(0)
        known = {
            "path": Path("run/best.safetensors"),
            "step": 7,
            "config": {"network": {}, "clip": {"num_frames": 2}},
            "num_bins": 4,
            "scale": 1,
            "voxels": "k4",
            "normalization": NORMALIZATION if takes_spikes else None,
            "store": {},
            "best": None,
            "averaged": False,
            "versions": {},
            "header": {"digest": "sha256:0123"},
        }
        return Restorer(
            network=(network or Stub()).eval(),
            normalizer=VoxelNormalizer(NORMALIZATION.table()) if takes_spikes else None,
            place=Parallel(device=torch.device("cpu")),
            info=CheckpointInfo(**known | changes),
        )

    return make


class Piece(nn.Module):
    """One stage of the network, a plain and a shifted block of both kinds of attention, on four channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stage = Stage(
            *(4, 4, "none"),
            window=(2, 2, 2),
            num_heads=2,
            mlp_ratio=2.0,
            drop_paths=[0.0] * 2,
            mutual_depth=2,
            neighbours=1,
            deformable_groups=2,
            offset_limit=5.0,
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    def forward(self, blurry: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Of the same size; takes no spikes."""
        x = torch.cat((blurry, blurry[:, :, :1]), dim=2).transpose(1, 2)
        return blurry + 0.1 * self.stage(x, None)[:, :3].transpose(1, 2)


def small_network(**changes: Any) -> nn.Module:
    """One block to a stage, and no weight zero."""
    torch.manual_seed(0)
    config = NetworkConfig(
        embed_dims=(8,) * 8,
        depths=(1,) * 8,
        num_heads=(2,) * 8,
        window=(2, 2, 2),
        indep_reconsts=(),
        mul_attn_ratio=0.5,
        deformable_groups=2,
        spike_channels=(4, 4, 4, 4),
        spike_heads=2,
        fusion_heads=2,
        **{"flow": "none"} | changes,
    )
    network = build_network(config, 4).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network
