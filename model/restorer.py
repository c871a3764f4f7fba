"""A trained network with everything it needs to restore stored frames: bytes in, frames out."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from model.checkpoint import CheckpointInfo, load_network
from model.network import NetworkConfig
from model.normalize import VoxelNormalizer, to_unit
from model.parallel import Parallel
from model.tiling import Tiling
from pipeline.errors import CheckpointError


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

    def __call__(self, blurry: Tensor, counts: Tensor | None) -> Tensor:
        """Restore uint8 blurry (B, T, 3, H, W) with spike counts (B, T, K, h, w): float32, about [0, 1]."""
        voxels = None if self.normalizer is None or counts is None else self.normalizer(counts)
        with self.place.autocast():
            return self.network(to_unit(blurry), voxels).float()

    @property
    def takes_spikes(self) -> bool:
        return self.normalizer is not None

    @property
    def num_frames(self) -> int:
        """Frames of the clips it was trained on."""
        return int(self.info.config.get("clip", {}).get("num_frames", Tiling().num_frames))


def load_restorer(path: Path, place: Parallel) -> Restorer:
    """Load a checkpoint file, or the best checkpoint of a run folder, ready to restore.

    Raises:
        CheckpointError: missing, damaged, or not of this network.
    """
    network, info = load_network(path)
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
