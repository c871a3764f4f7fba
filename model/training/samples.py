"""Pictures of what the network does, made while it learns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from model.metrics import to_rgb8
from model.training.events import Listener
from pipeline.clips import Sample
from pipeline.images import write_png

_GAP = 4
_WHITE = 255


class SamplePictures(Listener):
    """Restores the same clip each time and writes its middle frame as `step_000100.png`: blurry, restored, sharp.

    Args:
        folder: of the pictures.
        sample: a batch of one clip, uint8.
        restore: applies a network to it.
        show: told of each picture too: (step, uint8 (3, H, W)).
    """

    def __init__(
        self,
        folder: Path,
        sample: Sample,
        restore: Callable[[nn.Module, Sample], Tensor],
        show: Callable[[int, npt.NDArray[np.uint8]], None] | None = None,
    ) -> None:
        self.folder = folder
        self.sample = sample
        self.restore = restore
        self.show = show

    def on_pictures(self, step: int, network: nn.Module) -> None:
        """Write one picture."""
        middle = self.sample.blurry.shape[1] // 2
        restored = self.restore(network, self.sample)[0, middle].nan_to_num()
        frames = (self.sample.blurry[0, middle], to_rgb8(restored), self.sample.sharp[0, middle])
        picture = side_by_side([frame.cpu().numpy() for frame in frames])
        write_png(self.folder / f"step_{step:06d}.png", picture)
        if self.show:
            self.show(step, picture)


def side_by_side(frames: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Put (3, H, W) pictures in a row, white between them."""
    gap = np.full((3, frames[0].shape[1], _GAP), _WHITE, np.uint8)
    row = [part for frame in frames for part in (frame, gap)]
    return np.concatenate(row[:-1], axis=2)
