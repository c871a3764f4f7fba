"""The settings of a restoration."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from model.parallel import ParallelConfig
from model.tiling import Tiling


@dataclass(frozen=True, kw_only=True, slots=True)
class DeblurConfig:
    """How a recording is cut, and what is made of it.

    Attributes:
        tile: side of a tile in RGB pixels, a multiple of 8 and of the scale; null restores whole frames; "auto" takes
            the largest for which there is memory.
        overlap: RGB pixels that neighbouring tiles share.
        num_frames: frames of a clip; None takes as many as in training, or fewer where memory is short.
        overlap_frames: frames that neighbouring clips share; None takes 2, or half of a shorter clip.
        fps: frames per second of a video; None takes what the video or the exposures say, else 25. Where several
            instants are restored, there are so many times more.
        parallel: device and precision.
    """

    tile: int | Literal["auto"] | None = "auto"
    overlap: int = 32
    num_frames: int | None = None
    overlap_frames: int | None = None
    fps: Fraction | None = None
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 100_000:
            raise ValueError(f"fps {self.fps} is not above 0 and at most 100000")
        self.tiling(self.num_frames or max(Tiling().num_frames, 2 * (self.overlap_frames or 0)))

    def tiling(self, trained_frames: int) -> Tiling:
        """How to cut for a network that was trained on clips of `trained_frames`; whole frames where tile is auto."""
        tile = None if self.tile == "auto" else self.tile
        return Tiling.of_clips(trained_frames, tile, self.overlap, self.num_frames, self.overlap_frames)
