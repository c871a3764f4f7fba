"""How good a network is on the frames kept for that."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.metrics import psnr
from model.parallel import Parallel
from model.training.events import Validation
from pipeline import store
from pipeline.clips import Sample, sharp_instants
from pipeline.errors import TrainingError

IDENTICAL_DB = 100.0
"""The most that a frame counts; one that equals the sharp frame has an infinite PSNR."""


class Window(NamedTuple):
    """Frames [start, stop) of a sequence, restored together; those in `scored` are counted."""

    sequence: store.Sequence
    start: int
    stop: int
    scored: tuple[int, ...]


class Validator:
    """Mean PSNR (protocol rgb8-all) over the sharp frames of some sequences; the processes share the work.

    This number chooses the best checkpoint, so it must not fall when a frame gets better: a frame identical to the
    sharp one counts 100 dB. Left out of the mean, as `model.evaluation.scores` has it for the results of an evaluation,
    the last step to perfection would lower it; and an infinite mean could not be compared, plotted or written as JSON.

    Args:
        sequences: with blurry and sharp frames; others are left out.
        voxels: name of their voxel grids.
        num_frames: T of the clips that are restored; a shorter sequence, or run of one, is restored in one piece.
        crop: side in RGB pixels of the centre looked at; None looks at full frames.
        max_clips: most clips of a sequence, spread evenly over it; None takes all.
        scale: RGB pixels per spike pixel.
        restore: applies a network to a batch of one.
        place: this process among the others.
    """

    def __init__(
        self,
        sequences: Sequence[store.Sequence],
        voxels: str,
        *,
        num_frames: int,
        crop: int | None,
        max_clips: int | None,
        scale: int,
        restore: Callable[[nn.Module, Sample], Tensor],
        place: Parallel,
    ) -> None:
        self.voxels = voxels
        self.crop = crop
        self.scale = scale
        self.restore = restore
        self.place = place
        usable = [
            sequence for sequence in sequences if sequence.blurry is not None and sequence.has_sharp.any()
        ]
        windows = (spread(list(windows_of(sequence, num_frames)), max_clips) for sequence in usable)
        self.windows = [window for some in windows for window in some]

    def __call__(self, network: nn.Module, stop: Callable[[], bool] = lambda: False) -> Validation | None:
        """Judge `network`; all processes get the same answer.

        Args:
            stop: asked before every clip; None is the answer as soon as one process was asked to stop.

        Raises:
            TrainingError: the network gives values that are not finite.
        """
        total = torch.zeros(2, dtype=torch.float64)
        for first in range(0, len(self.windows), self.place.world):
            if self.place.any(stop()):
                return None
            for window in self.windows[first : first + self.place.world][self.place.rank :][:1]:
                total += self._score(network, window)
        score, frames = self.place.sum(total.to(self.place.device)).tolist()
        return Validation(score / frames, int(frames))

    def _score(self, network: nn.Module, window: Window) -> Tensor:
        """The summed PSNR of its scored frames, and how many these are."""
        sample = self.read(window)
        restored = self.restore(network, sample)[0].cpu()
        if not torch.isfinite(restored).all():
            place = f"{window.sequence.split}/{window.sequence.name} frames {window.start}..{window.stop - 1}"
            raise TrainingError(f"the network gives values that are not finite on {place}")
        index = [frame - window.start for frame in window.scored]
        scores = psnr(restored[index], sample.sharp[0, index]).clamp(max=IDENTICAL_DB)
        return torch.tensor([scores.sum().item(), len(index)], dtype=torch.float64)

    def read(self, window: Window) -> Sample:
        """The frames of a window as a batch of one, uint8, and their instants."""
        sequence, frames = window.sequence, slice(window.start, window.stop)
        rows, columns = (self._centre(length) for length in sequence.blurry.shape[-2:])
        spike_rows, spike_columns = (
            slice(span.start // self.scale, span.stop // self.scale) for span in (rows, columns)
        )
        arrays = (
            sequence.blurry[frames, :, rows, columns],
            sequence.voxels(self.voxels)[frames, :, spike_rows, spike_columns],
            sequence.sharp[frames, :, rows, columns],
            sharp_instants(sequence)[frames],
        )
        return Sample(*(torch.tensor(array).unsqueeze(0) for array in arrays))

    def _centre(self, length: int) -> slice:
        """The middle `crop` pixels of an axis, from a multiple of the scale to another."""
        wanted = length if self.crop is None else min(self.crop // self.scale * self.scale, length)
        start = (length - wanted) // 2 // self.scale * self.scale
        return slice(start, start + wanted)


def windows_of(sequence: store.Sequence, num_frames: int) -> Iterator[Window]:
    """Cut a sequence into clips of `num_frames` so that every frame with a sharp one is scored once.

    No clip spans a gap. The last clip of a run is moved back to end with it; what it shares with the one before is
    not scored again.
    """
    for run_start, run_stop in sequence.runs:
        length = min(num_frames, run_stop - run_start)
        for first in range(run_start, run_stop, length):
            start = min(first, run_stop - length)
            scored = tuple(frame for frame in range(first, start + length) if sequence.has_sharp[frame])
            if scored:
                yield Window(sequence, start, start + length, scored)


def spread(windows: list[Window], most: int | None) -> list[Window]:
    """At most `most` of the windows, evenly spaced."""
    if most is None or len(windows) <= most:
        return windows
    return [windows[i * len(windows) // most] for i in range(most)]
