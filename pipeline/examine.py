"""Looking at a recording before anything is written: do its files open, look right, fit together in time and size?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.align import Alignment, align_recording
from pipeline.blocks import SpikeFiles
from pipeline.copies import refuse_copied_files
from pipeline.errors import FormatError
from pipeline.geometry import check_geometry
from pipeline.images import image_size
from pipeline.manifest import Manifest
from pipeline.recordings import Recording, scale_of
from pipeline.reports import Quarantined


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A recording that was found usable, and what building its arrays needs to know."""

    recording: Recording
    alignment: Alignment
    files: SpikeFiles
    blurry_paths: tuple[Path | None, ...]
    sharp_paths: tuple[Path | None, ...]
    scale: int

    @property
    def key(self) -> str:
        return f"{self.recording.split}/{self.recording.sequence}"

    @property
    def spike_shape(self) -> tuple[int, int]:
        return self.files.format.height, self.files.format.valid_width

    @property
    def rgb_shape(self) -> tuple[int, int]:
        """Height and width of the RGB frames, in pixels."""
        height, width = self.spike_shape
        return height * self.scale, width * self.scale


def examine_recording(
    recording: Recording, manifest: Manifest
) -> tuple[Examined | None, tuple[Quarantined, ...]]:
    """Open the files of a recording, check them, align them.

    Returns:
        What was found, or None when no frame is left; and the frames set aside, whether that is allowed or not.

    Raises:
        FormatError: a file cannot be read, or is not what the manifest says; a sharp frame is a copy.
        AlignmentError: the exposure rule cannot be applied.
    """
    if not recording.frames or not recording.spike_paths:
        return None, recording.problems
    files = SpikeFiles.measure(recording.spike_paths, recording.format)
    check_geometry(recording.spike_paths[0], recording.format)
    alignment = align_recording(recording, manifest, files.files)
    problems = recording.problems + alignment.problems
    if not alignment.frames:
        return None, problems
    place = {frame: k for k, frame in enumerate(recording.frames)}
    kept = [place[frame] for frame in alignment.frames]
    examined = Examined(
        recording=recording,
        alignment=alignment,
        files=files,
        blurry_paths=tuple(recording.blurry_paths[k] for k in kept),
        sharp_paths=tuple(recording.sharp_paths[k] for k in kept),
        scale=scale_of(recording, manifest),
    )
    _check_images(examined)
    return examined, problems


def _check_images(examined: Examined) -> None:
    expected = examined.rgb_shape
    for path in (*examined.blurry_paths, *examined.sharp_paths):
        if path is not None and (found := image_size(path)) != expected:
            raise FormatError(
                f"{path}: {found[0]}x{found[1]} pixels, expected {expected[0]}x{expected[1]}: the spikes'"
                f" {examined.spike_shape[0]}x{examined.spike_shape[1]} times {examined.scale}"
            )
    refuse_copied_files(examined.blurry_paths, examined.sharp_paths)


def common_scale(examined: Sequence[Examined]) -> int:
    """The one scale of all recordings.

    Raises:
        FormatError: they have several.
    """
    by_scale = {one.scale: one for one in examined}
    if len(by_scale) > 1:
        (a, first), (b, second), *_ = by_scale.items()
        raise FormatError(
            f"{first.key} has RGB frames {a} times the size of its spikes, {second.key} {b} times",
            "ingest them into separate stores",
        )
    return next(iter(by_scale))
