"""The frames of a recording, restored one after the other, and what shows them beside what they were made from."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from model.deblurring.instants import MIDDLE, at_instant
from model.metrics import to_rgb8
from model.restorer import Restorer
from model.tiling import Tiling, restore_tiled
from pipeline.errors import CheckpointError
from pipeline.own_recording import OwnRecording
from pipeline.previews.preview import WHITE_PERCENTILE, contact_sheet, enlarge, to_grey8

U8 = npt.NDArray[np.uint8]


def restored_frames(
    recording: OwnRecording,
    restorer: Restorer,
    tiling: Tiling,
    instants: Sequence[float | None] = (None,),
    since: int = 0,
) -> Iterator[tuple[int, list[U8]]]:
    """Each frame from `since` on as its index, and an image (3, H, W) uint8 for each of the instants.

    However long the recording is, no more than a clip for each instant is in memory.

    Raises:
        CheckpointError: the network gives values that are not finite.
    """
    voxels = recording.voxels(restorer.info.num_bins) if restorer.takes_spikes else None
    for start, stop in recording.runs:  # frames on the two sides of a gap are no neighbours
        first = max(start, since)
        streams = [
            restore_tiled(
                at_instant(restorer, instant),
                recording.blurry,
                voxels,
                tiling,
                span=(start, stop),
                since=first,
                scale=recording.scale,
                device=restorer.place.device,
            )
            for instant in instants
        ]
        for index, frames in enumerate(zip(*streams, strict=True), first):
            try:
                images = [to_rgb8(frame).cpu().numpy() for frame in frames]
            except ValueError as error:
                raise CheckpointError(
                    f"{restorer.info.path}: restoring {recording.frames[index]}: {error}",
                    "use an earlier checkpoint of the run, or parallel.precision=fp32",
                ) from error
            yield index, images


class Panels:
    """Pictures of blurry frame, restored frame and spikes beside each other, all equally bright."""

    def __init__(self, recording: OwnRecording) -> None:
        self._recording = recording

    def picture(self, index: int, restored: U8, instant: float | None) -> U8:
        """The picture (3, h, w) of frame `index` as restored at an instant."""
        recording = self._recording
        light = recording.light(index, MIDDLE if instant is None else instant)
        spikes = enlarge(to_grey8(light, self._white), recording.scale)
        name = "restored" if instant is None else f"restored at {instant:g}"
        return contact_sheet([recording.blurry[index], restored, spikes], ["blurry", name, "spikes"])

    @functools.cached_property
    def _white(self) -> float:
        """The rate of spikes that is shown as white: few pixels of the frames that were checked have more."""
        rates = (self._recording.light(k) for k in self._recording.checked())
        return max(float(np.percentile(rate, WHITE_PERCENTILE)) for rate in rates)
