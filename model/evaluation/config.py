"""The settings of an evaluation."""

from dataclasses import dataclass, field
from pathlib import Path

from model.evaluation.perceptual import LPIPS, load_protocols
from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from model.parallel import ParallelConfig
from model.tiling import Tiling
from pipeline.ablations import Ablation, Threshold, parse_ablation


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What to evaluate on, and how to cut it.

    Attributes:
        split: of the store.
        voxels: name of the voxel grids; None takes those the network was trained on.
        protocols: how scores are made; pictures and plots go by the first.
        lpips_weights: the files that protocols lpips-alex and lpips-vgg need: of the network, and of the channels.
        tile: side of a tile in RGB pixels, a multiple of 8 and of the scale; None restores whole frames.
        overlap: RGB pixels that neighbouring tiles share.
        num_frames: frames of a clip; None takes as many as in training.
        overlap_frames: frames that neighbouring clips share; None takes 2, or half of a shorter clip.
        pictures: most frames of a kind that the report shows: middle frames, those with the lowest PSNR, ...
        ablate: other spikes to restore with as well, as `spikes=zero`, `spikes=shuffle`, `spikes=shift:±8`,
            `spikes=rate:1/2`.
        thresholds: of cameras to restore the spikes of as well, in whole multiples of the recording's.
        parallel: device and precision.
    """

    split: str = "test"
    voxels: str | None = None
    protocols: tuple[str, ...] = (DEFAULT,)
    lpips_weights: tuple[Path, ...] = ()
    tile: int | None = 256
    overlap: int = 32
    num_frames: int | None = None
    overlap_frames: int | None = None
    pictures: int = 10
    ablate: tuple[str, ...] = ()
    thresholds: tuple[int, ...] = ()
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        known = (*PROTOCOLS, *LPIPS)
        unknown = [name for name in self.protocols if name not in known]
        if unknown or len(set(self.protocols)) < max(1, len(self.protocols)):
            raise ValueError(
                f"protocols {list(self.protocols)}: expected different ones of {', '.join(known)}"
            )
        needing = [name for name in self.protocols if name in LPIPS]
        if needing and not self.lpips_weights:
            raise ValueError(
                f"protocol {needing[0]} needs weights: lpips_weights=[FILE, FILE], of the network and the channels"
            )
        if self.lpips_weights and not needing:
            raise ValueError(f"lpips_weights is set, but protocols has none of {', '.join(LPIPS)}")
        if self.pictures < 1:
            raise ValueError(f"pictures {self.pictures} is below 1")
        _ = self.ablations  # raises ValueError where they mean nothing
        self.tiling(self.num_frames or max(Tiling().num_frames, 2 * (self.overlap_frames or 0)))

    @property
    def chosen(self) -> tuple[Protocol, ...]:
        """The protocols themselves; reads the weights of those that need some."""
        return load_protocols(self.protocols, self.lpips_weights)

    @property
    def ablations(self) -> tuple[Ablation, ...]:
        """The changes to the spikes, each once; one time the threshold is no change."""
        asked = [one for text in self.ablate for one in parse_ablation(text)]
        cameras = [Threshold(times) for times in self.thresholds]
        return tuple(dict.fromkeys([*asked, *(camera for camera in cameras if camera.times > 1)]))

    def tiling(self, trained_frames: int) -> Tiling:
        """How to cut sequences for a network that was trained on clips of `trained_frames`."""
        return Tiling.of_clips(trained_frames, self.tile, self.overlap, self.num_frames, self.overlap_frames)
