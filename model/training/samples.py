"""Pictures of what the network does, made while it learns."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from model.evaluation.pictures import SMALLEST_PANEL
from model.metrics import psnr, to_rgb8
from model.training.events import Listener
from model.training.validation import Validator, spread
from pipeline.clips import ClipSource, Sample
from pipeline.images import write_png
from pipeline.previews.preview import contact_sheet, enlarge, voxel_preview

COLUMNS = 4


class Example(NamedTuple):
    """A clip to look at again and again: where it is from, and a batch of one, uint8."""

    name: str
    sample: Sample


def examples(validator: Validator, source: ClipSource, count: int, seed: int) -> list[Example]:
    """At most `count` clips that are validated, spread over the sequences; without any, clips to learn from."""
    if validator.windows:
        by_sequence = [
            list(some) for _, some in groupby(validator.windows, lambda window: window.sequence.name)
        ]
        middles = [windows[len(windows) // 2] for windows in by_sequence]
        chosen = spread(middles if len(middles) >= count else validator.windows, count)
        return [
            Example(f"{window.sequence.split}/{window.sequence.name}", validator.read(window))
            for window in chosen
        ]
    numbers = range(min(count, len(source)))
    return [Example("from training", source.batch(range(n, n + 1), seed)) for n in numbers]


class SamplePictures(Listener):
    """Restores the same clips each time and writes their middle frames as `step_000100.png`.

    A row is a clip: blurry, restored, sharp, and the spikes around the instant of the sharp frame. Small frames are
    enlarged.

    Args:
        folder: of the pictures.
        examples: at least one.
        restore: applies a network to a clip.
        show: told of each picture too: (step, uint8 (3, H, W)).
    """

    def __init__(
        self,
        folder: Path,
        examples: Sequence[Example],
        restore: Callable[[nn.Module, Sample], Tensor],
        show: Callable[[int, npt.NDArray[np.uint8]], None] | None = None,
    ) -> None:
        self.folder = folder
        self.examples = examples
        self.restore = restore
        self.show = show

    def on_pictures(self, step: int, network: nn.Module) -> None:
        """Write one picture."""
        rows = [self._row(step, network, example) for example in self.examples]
        labels, frames = zip(*(panel for row in rows for panel in row), strict=True)
        picture = contact_sheet(frames, labels, COLUMNS)
        write_png(self.folder / f"step_{step:06d}.png", picture)
        if self.show:
            self.show(step, picture)

    def _row(
        self, step: int, network: nn.Module, example: Example
    ) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        """Label and frame of each picture of a clip."""
        clip, middle = example.sample, example.sample.blurry.shape[1] // 2
        blurry, counts, sharp = clip.blurry[0, middle], clip.voxels[0, middle].numpy(), clip.sharp[0, middle]
        restored = to_rgb8(self.restore(network, clip)[0, middle].nan_to_num()).cpu()
        before, after = psnr(blurry, sharp).item(), psnr(restored, sharp).item()
        instant = clip.instants[0, middle].item() if clip.instants.numel() else 0.5
        spikes = voxel_preview(counts, around=len(counts) * instant)
        larger = -(-SMALLEST_PANEL // blurry.shape[-1])
        scale = blurry.shape[-1] // spikes.shape[-1]
        return [
            (f"blurry  {before:.2f} dB", enlarge(blurry.numpy(), larger)),
            (f"restored  {after:.2f} dB  step {step}", enlarge(restored.numpy(), larger)),
            (f"sharp  {example.name}", enlarge(sharp.numpy(), larger)),
            ("spikes", enlarge(spikes, scale * larger)),
        ]
