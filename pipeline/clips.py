"""Training clips: which there are, which of them a step sees, and reading them from the mapped store.

Step n sees crops that depend on (seed, n) only, for any number of threads and ranks: to resume, start at n.
"""

import collections
import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import StoreError, TrainingError, UsageError
from pipeline.storage.mapped import MappedArray
from pipeline.store import Sequence, Store
from pipeline.transforms import Augmentation, draw_augmentation

PREFETCHED_BATCHES = 4


class Sample(NamedTuple):
    """A clip, or with a leading B a batch of them; all uint8 until the device normalizes them.

    Attributes:
        blurry, sharp: (T, 3, H, W).
        voxels: (T, K, H / scale, W / scale) spike counts.
    """

    blurry: torch.Tensor
    voxels: torch.Tensor
    sharp: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """How clips are cut from sequences.

    Attributes:
        num_frames: T, consecutive blurry frames of a clip; none of the recording's were set aside between them.
        crop: side of the square crop, in RGB pixels.
        flips, rotations: draw from the eight symmetries of the square.
        time_reversal: also play clips backwards, where the sharp instant is the middle of the exposure.
    """

    num_frames: int = 5
    crop: int = 256
    flips: bool = True
    rotations: bool = True
    time_reversal: bool = True

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames {self.num_frames} must be at least 1")
        if self.crop < 8:
            raise ValueError(f"crop {self.crop} must be at least 8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Frames [first_frame, first_frame + T) of one sequence.

    Attributes:
        reversible: backwards it would be a clip as well: its sharp instants are in the middle.
    """

    sequence: int
    first_frame: int
    reversible: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One sample to read: a clip, and how to cut and turn it."""

    clip: Clip
    augmentation: Augmentation


class ClipSource:
    """The clips of one split of a store that have sharp frames to learn from."""

    def __init__(self, store: Store, split: str, voxels: str, config: ClipConfig) -> None:
        """
        Raises:
            UsageError: the crop does not fit the scale or the frames.
            StoreError: no blurry or no sharp frames, or no such voxel grids.
            TrainingError: no sequence has `num_frames` consecutive frames with sharp ones.
        """
        self.config = config
        self.scale = store.scale
        if config.crop % store.scale:
            raise UsageError(f"clip.crop={config.crop} is not a multiple of the spikes' scale, {store.scale}")
        sequences = [sequence for sequence in store.sequences(split) if sequence.has_sharp.any()]
        if not sequences and store.splits.get(split):
            raise StoreError(
                f"{store.path}: split {split!r} has no sharp frames to train on",
                "name them in the manifest's layout as `sharp:` and ingest again",
            )
        self._arrays = [_arrays_of(sequence, voxels) for sequence in sequences]
        self.clips = tuple(
            clip
            for number, (sequence, arrays) in enumerate(zip(sequences, self._arrays, strict=True))
            for clip in _clips_of(number, sequence, config, num_bins=arrays[1].shape[1])
        )
        if not self.clips:
            raise TrainingError(
                f"{store.path}: no clip of {config.num_frames} consecutive frames with sharp ones in split {split!r}",
                "set clip.num_frames to what the sequences have; `spk inspect` shows them",
            )
        self.num_bins = int(self._arrays[0][1].shape[1])
        self._rooms = [_room(store, blurry, config.crop) for blurry, _, _ in self._arrays]

    def __len__(self) -> int:
        return len(self.clips)

    def draw(self, number: int, seed: int) -> Draw:
        """The sample of running number `number`: every clip comes once per epoch, in an order of that epoch."""
        epoch, position = divmod(number, len(self.clips))
        clip = self.clips[_epoch_order(seed, epoch, len(self.clips))[position]]
        config = self.config
        augmentation = draw_augmentation(
            np.random.default_rng((seed, 1, number)),
            self._rooms[clip.sequence],
            flips=config.flips,
            rotations=config.rotations,
            reversal=config.time_reversal and clip.reversible,
        )
        return Draw(clip=clip, augmentation=augmentation)

    def read(self, draw: Draw) -> Sample:
        """Read one sample from the mapped store."""
        blurry, voxels, sharp = self._arrays[draw.clip.sequence]
        how, crop = draw.augmentation, self.config.crop
        span = slice(draw.clip.first_frame, draw.clip.first_frame + self.config.num_frames)
        rows, columns = how.window(crop, self.scale)
        spike_rows, spike_columns = how.window(crop // self.scale, 1)
        return Sample(
            blurry=_tensor(how.turn(blurry[span, :, rows, columns])),
            voxels=_tensor(how.turn_voxels(voxels[span, :, spike_rows, spike_columns])),
            sharp=_tensor(how.turn(sharp[span, :, rows, columns])),
        )

    def batch(self, numbers: range, seed: int) -> Sample:
        """The samples of some running numbers, stacked."""
        samples = [self.read(self.draw(number, seed)) for number in numbers]
        return Sample(*(torch.stack(parts) for parts in zip(*samples, strict=True)))


def batches(
    source: ClipSource,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    accumulate: int = 1,
) -> Iterator[Sample]:
    """Batches from `start_step` on, without end, read ahead by threads of this process.

    Threads, because slicing maps and checking sums release the interpreter lock, and worker processes would copy
    every batch once more.

    Args:
        batch_size: samples of one batch on one rank.
        rank, world: this process and how many there are; the step's samples are dealt out among them.
        accumulate: batches that make one step; as many are given for each.
    """

    def numbers(index: int) -> range:
        step, micro = divmod(index, accumulate)
        first = (((start_step + step) * accumulate + micro) * world + rank) * batch_size
        return range(first, first + batch_size)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as threads:
        indices = itertools.count()
        waiting = collections.deque(
            threads.submit(source.batch, numbers(index), seed)
            for index in itertools.islice(indices, PREFETCHED_BATCHES)
        )
        try:
            while True:
                waiting.append(threads.submit(source.batch, numbers(next(indices)), seed))
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_clips: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, 0, epoch)).permutation(num_clips)


def _arrays_of(sequence: Sequence, voxels: str) -> tuple[MappedArray, MappedArray, MappedArray]:
    blurry, sharp = sequence.blurry, sequence.sharp
    if blurry is None:
        raise StoreError(
            f"{sequence.path}: has no blurry frames to train on",
            "name them in the manifest's layout as `blurry:`, or declare `blurry_from_spikes:`, and ingest again",
        )
    assert sharp is not None  # some frames have one
    return blurry, sequence.voxels(voxels), sharp


def _clips_of(number: int, sequence: Sequence, config: ClipConfig, num_bins: int) -> Iterator[Clip]:
    start, stop = sequence.exposure.T
    off_centre = np.abs(2 * (sequence.sharp_index - start) + 1 - (stop - start))
    in_middle = off_centre * num_bins <= stop - start  # within half a bin
    for run_start, run_stop in sequence.runs:
        for first in range(run_start, run_stop - config.num_frames + 1):
            span = slice(first, first + config.num_frames)
            if sequence.has_sharp[span].all():
                yield Clip(sequence=number, first_frame=first, reversible=bool(in_middle[span].all()))


def _room(store: Store, blurry: MappedArray, crop: int) -> tuple[int, int]:
    height, width = blurry.shape[2:]
    if crop > min(height, width):
        raise UsageError(
            f"clip.crop={crop} is larger than the frames of {blurry.path}, {height}x{width}",
            f"set clip.crop={min(height, width) // store.scale * store.scale} or less",
        )
    return (height - crop) // store.scale, (width - crop) // store.scale


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, order="C"))  # a copy: views of a map are read-only
