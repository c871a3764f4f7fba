"""Training clips: which there are, which of them a step sees, and reading them from the mapped store.

Step n sees crops that depend on (seed, n) only, for any number of threads and ranks: to resume, start at n.
"""

import collections
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import StoreError, TrainingError, UsageError
from pipeline.reader_times import ReaderTimes
from pipeline.respike import DrawnSensor, SpikeAugmentation
from pipeline.storage.mapped import MappedArray
from pipeline.storage.selections import Selectable
from pipeline.store import Sequence, Store
from pipeline.transforms import Augmentation, draw_augmentation
from pipeline.voxels import frames_per_bin


class Sample(NamedTuple):
    """A clip, or with a leading B a batch of them; frames and counts are uint8 until the device normalizes them.

    Attributes:
        blurry, sharp: (T, 3, H, W).
        voxels: (T, K, H / scale, W / scale) spike counts.
        instants: (T,) float32, where in its exposure each sharp frame is, from 0 to 1; (0,) where nobody asks.
    """

    blurry: torch.Tensor
    voxels: torch.Tensor
    sharp: torch.Tensor
    instants: torch.Tensor = torch.empty(0)


def checksum_of(samples: Iterable[Sample]) -> str:
    """The CRC-32C of all bytes of samples or batches in their order, in hexadecimal: equal for equal ones."""
    checksum = google_crc32c.Checksum()
    for part in itertools.chain.from_iterable(samples):
        checksum.update(part.cpu().contiguous().numpy())
    return checksum.hexdigest().decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """How clips are cut from sequences.

    Attributes:
        num_frames: T, consecutive blurry frames of a clip; none of the recording's were set aside between them.
        crop: side of the square crop, in RGB pixels.
        flips, rotations: draw from the eight symmetries of the square.
        time_reversal: also play clips backwards: for a network that is told the sharp instants all of them, otherwise
            those whose sharp instants are in the middle of the exposure.
        spikes: sensors that the spikes are made to come from.
    """

    num_frames: int = 5
    crop: int = 256
    flips: bool = True
    rotations: bool = True
    time_reversal: bool = True
    spikes: SpikeAugmentation = field(default_factory=SpikeAugmentation)

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames {self.num_frames} must be at least 1")
        if self.crop < 8:
            raise ValueError(f"crop {self.crop} must be at least 8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Frames [first_frame, first_frame + T) of one sequence.

    Attributes:
        reversible: backwards it would be a clip as well: its sharp instants are told, or in the middle.
    """

    sequence: int
    first_frame: int
    reversible: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One sample to read: a clip, how to cut and turn it, and the sensor to count its spikes (None: its own)."""

    clip: Clip
    augmentation: Augmentation
    sensor: DrawnSensor | None = None


class ClipSource:
    """The clips of one split of a store that have sharp frames to learn from.

    Attributes:
        clips: all of them.
        names: "split/sequence" of the sequences that they are cut from.
        instant_range: the earliest and the latest instant that samples tell; None if they tell none.
    """

    def __init__(
        self, store: Store, split: str, voxels: str, config: ClipConfig, *, instants: bool = False
    ) -> None:
        """
        Args:
            instants: samples tell the instants of their sharp frames.

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
        self.names = tuple(f"{sequence.split}/{sequence.name}" for sequence in sequences)
        self._arrays = [_arrays_of(sequence, voxels) for sequence in sequences]
        self._exposures = [sequence.exposure for sequence in sequences]
        self._instants = [sharp_instants(sequence) for sequence in sequences] if instants else None
        self.instant_range = _range_of(self._instants, sequences) if self._instants else None
        self.clips = tuple(
            clip
            for number, (sequence, arrays) in enumerate(zip(sequences, self._arrays, strict=True))
            for clip in _clips_of(number, sequence, config, arrays[1].shape[1], told=instants)
        )
        if not self.clips:
            raise TrainingError(
                f"{store.path}: no clip of {config.num_frames} consecutive frames with sharp ones in split {split!r}",
                "set clip.num_frames to what the sequences have; `spk inspect` shows them",
            )
        self.num_bins = int(self._arrays[0][1].shape[1])
        self._voxel_type = np.result_type(*{voxels.dtype for _, voxels, _ in self._arrays})
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
        if config.spikes.is_off:
            return Draw(clip=clip, augmentation=augmentation)
        sensor = config.spikes.draw(np.random.default_rng((seed, 2, number)))
        return Draw(clip=clip, augmentation=augmentation, sensor=sensor)

    def read(self, draw: Draw) -> Sample:
        """Read one sample."""
        batch = self.room(1)
        self.read_into(draw, batch, 0)
        return Sample(*(part[0] for part in batch))

    def batch(self, numbers: range, seed: int) -> Sample:
        """The samples of some running numbers."""
        batch = self.room(len(numbers))
        for place, number in enumerate(numbers):
            self.read_into(self.draw(number, seed), batch, place)
        return batch

    def room(self, batch_size: int, *, pinned: bool = False) -> Sample:
        """Memory for a batch, not filled yet.

        Args:
            pinned: page-locked memory, from which a CUDA device copies by itself. torch keeps what is let go of to give
                it again, but not before the copies from it that were queued without waiting are done.
        """
        frames, crop, side = self.config.num_frames, self.config.crop, self.config.crop // self.scale
        frames_shape = batch_size, frames, 3, crop, crop
        voxels_shape = batch_size, frames, self.num_bins, side, side

        def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> torch.Tensor:
            if pinned:
                kind = torch.from_numpy(np.empty(0, dtype)).dtype
                return torch.empty(shape, dtype=kind, pin_memory=True)
            # From numpy, which asks for large pages: a batch is too large to come from memory that was used before.
            return torch.from_numpy(np.empty(shape, dtype))

        return Sample(
            blurry=empty(frames_shape, np.uint8),
            voxels=empty(voxels_shape, self._voxel_type),
            sharp=empty(frames_shape, np.uint8),
            instants=empty((batch_size, frames if self._instants else 0), np.float32),
        )

    def read_into(self, draw: Draw, batch: Sample, place: int) -> None:
        """Read one sample straight to its place in a batch, turned on the way."""
        blurry, voxels, sharp = self._arrays[draw.clip.sequence]
        how, crop = draw.augmentation, self.config.crop
        span = slice(draw.clip.first_frame, draw.clip.first_frame + self.config.num_frames)
        rgb = (span, slice(None), *how.window(crop, self.scale))
        spikes = (span, slice(None), *how.window(crop // self.scale, 1))
        to_blurry, to_voxels, to_sharp, to_instants = (part[place].numpy() for part in batch)
        blurry.read_into(rgb, how.unturned(to_blurry))
        if voxels.dtype == self._voxel_type:
            voxels.read_into(spikes, how.unturned_voxels(to_voxels))
        else:  # other sequences have counts that need more bits
            how.unturned_voxels(to_voxels)[...] = voxels[spikes]
        sharp.read_into(rgb, how.unturned(to_sharp))
        if self._instants:
            told = self._instants[draw.clip.sequence][span]
            to_instants[...] = (1 - told)[::-1] if how.reverse else told
        if draw.sensor:
            start, stop = self._exposures[draw.clip.sequence][span].T
            frames = np.stack([frames_per_bin(length, self.num_bins) for length in (stop - start).tolist()])
            draw.sensor.count_again(to_voxels, frames[::-1, ::-1] if how.reverse else frames)


def sharp_instants(sequence: Sequence) -> npt.NDArray[np.float32]:
    """Where in its exposure each sharp frame is, (N,): the middle of its spike frame, 0 the beginning and 1 the end.

    Of frames without a sharp one it is the middle of the exposure, 0.5.
    """
    start, stop = sequence.exposure.T
    instants = (2 * (sequence.sharp_index - start) + 1) / (2 * (stop - start))
    return np.where(sequence.has_sharp, instants, 0.5).astype(np.float32)


def as_read(batch: Sample) -> Sample:
    """The batch itself."""
    return batch


def batches(
    source: ClipSource,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    **reading: Any,
) -> Generator[Any, None, None]:
    """Batches from `start_step` on, without end, read ahead by threads of this process.

    Args:
        batch_size: samples of one batch on one rank.
        rank, world: this process and how many there are; the step's samples are dealt out among them.
        accumulate: batches that make one step; as many are given for each.
        reading: `workers`, `pinned`, `deliver` and `times` of `read_ahead`.
    """
    numbers = batch_numbers(
        itertools.count(start_step), batch_size=batch_size, rank=rank, world=world, accumulate=accumulate
    )
    return read_ahead(((source, some) for some in numbers), seed=seed, accumulate=accumulate, **reading)


def batch_numbers(
    steps: Iterable[int],
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    first: int = 0,
) -> Iterator[range]:
    """The running numbers of the samples of each batch of some steps, `accumulate` batches for each step.

    Args:
        steps: counted from 0.
        batch_size, rank, world: as in `batches`.
        first: running number of the first sample of step 0.
    """
    for step in steps:
        for micro in range(accumulate):
            start = first + ((step * accumulate + micro) * world + rank) * batch_size
            yield range(start, start + batch_size)


def read_ahead(
    wanted: Iterable[tuple[ClipSource, range]],
    *,
    seed: int,
    accumulate: int = 1,
    workers: int = 2,
    pinned: bool = False,
    deliver: Callable[[Sample], Any] = as_read,
    times: ReaderTimes | None = None,
) -> Generator[Any, None, None]:
    """Read batches, each given by its source and the running numbers of its samples, ahead of their use.

    Threads, because copying from maps, unpacking and checking sums release the interpreter lock, and worker
    processes would copy every batch once more, start for seconds and hold the interpreter's memory once each.

    Read ahead are the batches of a step, which are asked for at once, and a sample for every thread. As all threads
    read samples of the same batch, more would need memory and give no time.

    Args:
        accumulate: batches that make one step.
        workers: threads; with 0 a batch is read when it is asked for, by the thread that asks.
        pinned: read into page-locked memory.
        deliver: makes what is given of each batch, in the thread that has read the last sample of it: a copy on its
            way to a device, say.
        times: told what every sample takes to read.
    """
    times = times or ReaderTimes()

    def read(source: ClipSource, number: int, batch: Sample, place: int) -> None:
        with times.reading():
            source.read_into(source.draw(number, seed), batch, place)

    if not workers:
        for source, numbers in wanted:
            batch = source.room(len(numbers), pinned=pinned)
            for place, number in enumerate(numbers):
                read(source, number, batch, place)
            yield deliver(batch)
        return
    wanted, waiting = iter(wanted), collections.deque[_Reading]()

    def is_short() -> bool:
        return len(waiting) <= accumulate or sum(map(len, waiting)) - len(waiting[0]) < workers

    with ThreadPoolExecutor(max_workers=workers) as threads:
        try:
            while True:
                while is_short() and (more := next(wanted, None)):
                    waiting.append(_Reading(threads, *more, read=read, pinned=pinned, deliver=deliver))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for reading in waiting:
                reading.cancel()


class _Reading:
    """A batch whose samples are being read by some threads, the last of which delivers it."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        source: ClipSource,
        numbers: range,
        *,
        read: Callable[[ClipSource, int, Sample, int], None],
        pinned: bool,
        deliver: Callable[[Sample], Any],
    ) -> None:
        self._lock = threading.Lock()
        self._batch: Sample | None = None
        self._unread = len(numbers)

        def read_one(place: int, number: int) -> None:
            with self._lock:  # here, and not where a step waits for it
                batch = self._batch = self._batch or source.room(len(numbers), pinned=pinned)
            read(source, number, batch, place)
            with self._lock:
                self._unread -= 1
                complete = not self._unread
            if complete:
                self._delivered = deliver(batch)

        self._samples = [threads.submit(read_one, place, number) for place, number in enumerate(numbers)]

    def __len__(self) -> int:
        return len(self._samples)

    def result(self) -> Any:
        for sample in self._samples:
            sample.result()
        return self._delivered

    def cancel(self) -> None:
        for sample in self._samples:
            sample.cancel()


_ORDER_LOCK = threading.Lock()


def _epoch_order(seed: int, epoch: int, num_clips: int) -> npt.NDArray[np.int64]:
    with _ORDER_LOCK:  # one thread makes it, and the others wait: it may be large
        return _shuffled(seed, epoch, num_clips)


@functools.lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, num_clips: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, 0, epoch)).permutation(num_clips)


def _arrays_of(sequence: Sequence, voxels: str) -> tuple[MappedArray, Selectable, MappedArray]:
    blurry, sharp = sequence.blurry, sequence.sharp
    if blurry is None:
        raise StoreError(
            f"{sequence.path}: has no blurry frames to train on",
            "name them in the manifest's layout as `blurry:`, or declare `blurry_from_spikes:`, and ingest again",
        )
    assert sharp is not None  # some frames have one
    return blurry, sequence.voxels(voxels), sharp


def _clips_of(
    number: int, sequence: Sequence, config: ClipConfig, num_bins: int, *, told: bool
) -> Iterator[Clip]:
    start, stop = sequence.exposure.T
    off_centre = np.abs(2 * (sequence.sharp_index - start) + 1 - (stop - start))
    reversible = told | (off_centre * num_bins <= stop - start)  # or within half a bin of the middle
    for run_start, run_stop in sequence.runs:
        for first in range(run_start, run_stop - config.num_frames + 1):
            span = slice(first, first + config.num_frames)
            if sequence.has_sharp[span].all():
                yield Clip(sequence=number, first_frame=first, reversible=bool(reversible[span].all()))


def _range_of(
    instants: Iterable[npt.NDArray[np.float32]], sequences: Iterable[Sequence]
) -> tuple[float, float]:
    told = np.concatenate([some[of.has_sharp] for some, of in zip(instants, sequences, strict=True)])
    return float(told.min()), float(told.max())


def _room(store: Store, blurry: MappedArray, crop: int) -> tuple[int, int]:
    height, width = blurry.shape[2:]
    if crop > min(height, width):
        raise UsageError(
            f"clip.crop={crop} is larger than the frames of {blurry.path}, {height}x{width}",
            f"set clip.crop={min(height, width) // store.scale * store.scale} or less",
        )
    return (height - crop) // store.scale, (width - crop) // store.scale
