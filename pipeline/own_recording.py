"""A user's own recording, examined as at ingest, and read piece by piece without a store.

It can be as long as it likes: spikes are mapped, frames decoded and voxels counted when they are asked for.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.alignment.mismatches import likely_cause, questionable
from pipeline.blocks import SpikeFiles
from pipeline.dat import open_spikes
from pipeline.errors import AlignmentError
from pipeline.examine import Examined, examine_recording
from pipeline.frame_window import FrameWindow
from pipeline.own_files import OwnSetup, set_up
from pipeline.own_settings import OwnFiles
from pipeline.physics import LightFit, fit_light
from pipeline.previews.preview import mean_light
from pipeline.reports import Quarantined, listed
from pipeline.store import runs_of
from pipeline.virtual_voxels import CountedVoxels
from pipeline.voxels import PackedFrames

U8 = npt.NDArray[np.uint8]

CHECKED_FRAMES = 9
"""Frames, spread over the recording, that are compared with their spikes."""
AROUND, LEAST_SHOWN = 6, 8
"""A preview shows a sixth of an exposure, around an instant, and no fewer spike frames than this if there are more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LightCheck:
    """How some blurry frames fit the spikes of their exposures.

    Attributes:
        r2: of each of them, by its name.
        cause: what seems to be wrong, where they do not fit; None where they do, or cannot be expected to.
    """

    r2: Mapping[str, float]
    cause: str | None

    @property
    def median_r2(self) -> float:
        return float(np.median(list(self.r2.values())))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        r2 = {frame: round(value, 4) for frame, value in self.r2.items()}
        return {"median_r2": round(self.median_r2, 4), "cause": self.cause, "r2": r2}


class OwnSpikes:
    """Packed spikes (T, H, ceil(W / 8)) of one or several files, sliced by spike frame.

    Attributes:
        shape: (T, H, ceil(W / 8)).
    """

    def __init__(self, files: SpikeFiles) -> None:
        self._files = files
        self._opened = functools.lru_cache(maxsize=2)(open_spikes)
        self.width = files.format.valid_width
        self.shape = (files.num_frames, files.format.height, -(-self.width // 8))

    def __getitem__(self, frames: slice) -> U8:
        start, stop, _ = frames.indices(self.shape[0])
        return np.concatenate([np.empty((0, *self.shape[1:]), np.uint8), *self._parts(start, stop)])

    def frames(self, start: int, stop: int) -> PackedFrames:
        """Spike frames [start, stop), where they are in the map if they lie there as they are."""
        return PackedFrames.of(self._parts(start, stop))

    def _parts(self, start: int, stop: int) -> list[U8]:
        return [stream.packed(a, b) for stream, a, b in self._files.parts(start, stop, self._opened)]


class _Pictures:
    """The spikes as `preview.SpikeSource`."""

    def __init__(self, spikes: OwnSpikes) -> None:
        self.shape = (*spikes.shape[:2], spikes.width)
        self._spikes = spikes

    def packed(self, start: int, stop: int) -> U8:
        return self._spikes[start:stop]


class OwnRecording:
    """Frames, spikes and exposures of one recording; what a `store.Sequence` has, as far as restoring needs it.

    Attributes:
        setup: how it is read.
        frames: N names.
        exposure: int64 (N, 2) spans [start, stop) of spike frames.
        exposure_ns: int64 (N, 2), in nanoseconds on the spike clock; None where its rate is not known.
        runs: spans [start, stop) of frames that follow one another without a gap.
        spike_shape: H and W.
        scale: RGB pixels per spike pixel, along a side.
        blurry: (N, 3, H * scale, W * scale) uint8.
        spikes: packed, (T, H, ceil(W / 8)) uint8.
        problems: frames that were left out, and why.
    """

    def __init__(self, setup: OwnSetup, examined: Examined, problems: tuple[Quarantined, ...]) -> None:
        """Use `open_own_recording`."""
        alignment = examined.alignment
        self.setup = setup
        self.frames = alignment.frames
        self.exposure = alignment.exposure
        self.exposure_ns = alignment.exposure_ns if setup.is_timed else None
        self.runs = runs_of(tuple(alignment.positions.tolist()))
        self.format = examined.files.format
        self.spike_shape = examined.spike_shape
        self.scale = examined.scale
        self.blurry = FrameWindow(examined.blurry_paths, *examined.rgb_shape)
        self.spikes = OwnSpikes(examined.files)
        self.problems = problems

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def voxels(self, num_bins: int) -> CountedVoxels:
        """Spike counts (N, K, H, W) of the exposures, counted when they are read.

        Raises:
            AlignmentError: an exposure is too long to be counted in so few bins.
        """
        try:
            return CountedVoxels(self.spikes.frames, self.exposure, num_bins, self.spike_shape)
        except ValueError as error:
            raise AlignmentError(f"{self.setup.recording.spike_paths[0]}: {error}") from error

    def light(self, index: int, at: float = 0.5) -> npt.NDArray[np.float32]:
        """The rate of spikes around an instant of an exposure: (H, W), in spikes per spike frame.

        Args:
            at: 0 is the beginning of the exposure, 1 its end.
        """
        start, stop = self.exposure[index].tolist()
        length = min(max(math.ceil((stop - start) / AROUND), LEAST_SHOWN), stop - start)
        first = min(max(round(start + at * (stop - start) - length / 2), start), stop - length)
        return mean_light(_Pictures(self.spikes), first, first + length)

    def checked(self) -> list[int]:
        """The frames that are looked at to judge all of them: a few, spread evenly."""
        count = min(CHECKED_FRAMES, self.num_frames)
        return sorted(set(np.linspace(0, self.num_frames - 1, count).round().astype(int).tolist()))

    def check_light(self) -> LightCheck:
        """Compare some frames with their spikes, and find the likely cause if they do not fit."""
        found = {k: self._fit(k) for k in self.checked()}
        cause = likely_cause(self, self.scale) if questionable(list(found.values())) is not None else None
        return LightCheck(r2={self.frames[k]: fit.r2 for k, fit in found.items()}, cause=cause)

    def _fit(self, index: int) -> LightFit:
        counts = self.voxels(1)[index, 0]
        return fit_light(self.blurry[index], counts, self.scale)


def open_own_recording(files: OwnFiles, *, quarantine: bool = False) -> OwnRecording:
    """Open a recording, with all the checks of an ingest.

    Args:
        quarantine: leave out frames without a usable exposure, and report them in `problems`.

    Raises:
        FormatError: a file is missing, damaged, or not what it is said to be; RGB and spikes do not fit in size.
        AlignmentError: frames without a usable exposure.
        UsageError: nothing says when the frames were exposed, or settings are wrong.
    """
    setup = set_up(files)
    examined, problems = examine_recording(setup.recording, setup.manifest)
    if problems and not quarantine:
        raise AlignmentError(listed(problems), "correct them, or leave these frames out with --quarantine")
    if examined is None:
        raise AlignmentError(f"{files.video}: no frame has a usable exposure:\n{listed(problems)}")
    return OwnRecording(setup, examined, problems)
