"""A trained network with everything it needs to restore stored frames: bytes in, frames out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import CheckpointInfo, find_checkpoint, load_network, read_info
from model.network import NetworkConfig
from model.normalize import VoxelNormalizer, to_unit
from model.parallel import Parallel
from model.published import is_published, load_published, published_info
from model.tiling import Tiling
from pipeline.errors import CheckpointError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Restorer:
    """A network on its device, with the normalization it was trained with.

    Attributes:
        network: in evaluation mode.
        normalizer: of its voxels; None for a network that takes none.
        place: device and precision.
        info: of its checkpoint.
    """

    network: nn.Module
    normalizer: VoxelNormalizer | None
    place: Parallel
    info: CheckpointInfo

    def __call__(self, blurry: Tensor, counts: Tensor | None, instants: Tensor | None = None) -> Tensor:
        """Restore frames, float32 (B, T, 3, H, W), about [0, 1].

        Args:
            blurry: uint8 (B, T, 3, H, W).
            counts: (B, T, K, h, w), spikes in each bin.
            instants: (B, T), what to restore of each exposure, from 0, its beginning, to 1, its end; None is the middle
                of all, or for a network that takes no instants whichever it was trained for.

        Raises:
            UsageError: instants outside the exposure, or for a network that takes none.
        """
        if instants is not None and not self.takes_instants:
            raise UsageError(
                f"{self.info.path}: restores one instant of the exposure, the one it was trained for",
                "train a network with network.instants=true on sharp frames at several instants",
            )
        if instants is not None and not ((instants >= 0) & (instants <= 1)).all():
            raise UsageError(f"instants {instants.unique().tolist()}: an exposure goes from 0 to 1")
        if instants is None and self.takes_instants:
            instants = torch.full(blurry.shape[:2], 0.5)
        voxels = None if self.normalizer is None or counts is None else self.normalizer(counts)
        told = [] if instants is None else [instants.to(blurry.device, torch.float32, non_blocking=True)]
        with self.place.autocast():
            return self.network(to_unit(blurry), voxels, *told).float()

    @property
    def takes_spikes(self) -> bool:
        return self.normalizer is not None

    @property
    def takes_instants(self) -> bool:
        """Whether it can be asked for any instant of the exposures."""
        return bool(self.info.config["network"].get("instants", NetworkConfig().instants))

    @property
    def num_frames(self) -> int:
        """Frames of the clips it was trained on; of published weights, those of the clips they were tested on."""
        return int(self.info.config.get("clip", {}).get("num_frames", Tiling().num_frames))


def find_info(path: Path) -> CheckpointInfo:
    """What is known of the network that `load_restorer` would load; its path is that of a file.

    Raises:
        CheckpointError: missing, damaged, or no network.
    """
    return published_info(path) if is_published(path) else read_info(find_checkpoint(path))


def load_restorer(path: Path, place: Parallel) -> Restorer:
    """Load a checkpoint file, the best checkpoint of a run folder, or published weights, ready to restore.

    Raises:
        CheckpointError: missing, damaged, or not of this network.
    """
    network, info = load_published(path) if is_published(path) else load_network(path)
    takes_spikes = info.config["network"].get("fusion", NetworkConfig().fusion) != "none"
    if takes_spikes and info.normalization is None:
        raise CheckpointError(f"{info.path}: lacks the normalization of its voxels", "train it again")
    normalizer = VoxelNormalizer(info.normalization.table()) if takes_spikes else None
    return Restorer(
        network=network.to(place.device).eval(),
        normalizer=normalizer.to(place.device) if normalizer else None,
        place=place,
        info=info,
    )
