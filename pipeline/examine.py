"""Looking at a recording before anything is written: do its files open, look right, fit together in time and size?"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.align import Alignment, align_recording
from pipeline.blocks import SpikeFiles
from pipeline.copies import refuse_copied_files
from pipeline.dat import open_spikes
from pipeline.errors import AlignmentError, FormatError
from pipeline.frames import FramePlace, frame_size, read_frame
from pipeline.manifest import Manifest
from pipeline.recognition.continuity import find_breaks
from pipeline.recognition.flip import FlipEvidence, flip_evidence
from pipeline.recognition.geometry import check_geometry
from pipeline.recognition.smoothness import GeometryScore
from pipeline.recordings import Recording, scale_of
from pipeline.reports import Quarantined
from pipeline.spike_format import SpikeFormat

log = logging.getLogger(__name__)

SHARP_WINDOW = 16
"""Spike frames on either side of a sharp instant that are compared with the sharp frame."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A recording that was found usable, and what building its arrays needs to know.

    Attributes:
        checks: what its content showed, as plain values: see `_checks`.
        offset: spike frames by which its exposures were corrected, as the store records it.
    """

    recording: Recording
    alignment: Alignment
    files: SpikeFiles
    blurry_paths: tuple[FramePlace | None, ...]
    sharp_paths: tuple[FramePlace | None, ...]
    scale: int
    checks: dict[str, Any]
    offset: int = 0

    @property
    def key(self) -> str:
        return self.recording.key

    @property
    def spike_shape(self) -> tuple[int, int]:
        return self.files.format.height, self.files.format.valid_width

    @property
    def rgb_shape(self) -> tuple[int, int]:
        """Height and width of the RGB frames, in pixels."""
        height, width = self.spike_shape
        return height * self.scale, width * self.scale


def examine_recording(
    recording: Recording,
    manifest: Manifest,
    offsets: Mapping[str, int] = MappingProxyType({}),
    *,
    quarantine: bool = False,
) -> tuple[Examined | None, tuple[Quarantined, ...]]:
    """Open the files of a recording, check them, align them.

    Args:
        offsets: spike frames to add to the exposures of a recording, by its key.
        quarantine: set a recording aside that is no recording of its format, instead of raising.

    Returns:
        What was found, or None when no frame is left; and the frames set aside, whether that is allowed or not.

    Raises:
        FormatError: a file cannot be read, or is not what the manifest says; a sharp frame is a copy.
        AlignmentError: the exposure rule cannot be applied.
    """
    try:
        return _examine(recording, manifest, offsets)
    except (FormatError, AlignmentError) as error:  # what is wrong with the command concerns all recordings
        if not quarantine:
            raise
        place = f"{recording.split}/{recording.source_name}"
        return None, (*recording.problems, Quarantined(place, f"the whole recording: {error.problem}"))


def _examine(
    recording: Recording, manifest: Manifest, offsets: Mapping[str, int]
) -> tuple[Examined | None, tuple[Quarantined, ...]]:
    if not recording.frames or not recording.spike_paths or recording.format is None:
        return None, recording.problems
    smooth = check_geometry(recording.spike_paths[0], recording.format)
    files = SpikeFiles.measure(recording.spike_paths, recording.format)
    offset = offsets.get(recording.key, 0)
    alignment = align_recording(recording, manifest, files.files, offset)
    alignment = _without_breaks(alignment, files, manifest)
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
        checks={},
        offset=offset,
    )
    _check_images(examined)
    flip = _flip_of(examined)
    fmt = _decided_flip(examined, flip)
    return replace(examined, files=replace(files, format=fmt), checks=_checks(smooth, flip)), problems


def _checks(smooth: GeometryScore, flip: FlipEvidence | None) -> dict[str, Any]:
    """What the store keeps of the evidence: how smooth the mean image is, whether the stream shows its frame period,
    and whether pictures show that the rows are upright."""
    return {
        "smoothness": round(smooth.score, 4),
        "in_period": smooth.in_period,
        "upright": flip is not None and flip.verdict is not None,
    }


def _without_breaks(alignment: Alignment, files: SpikeFiles, manifest: Manifest) -> Alignment:
    """The alignment without the frames whose exposures end after a place where the stream does not go on.

    From there to the end of the file every spike frame lies one off, at least, from where the time says it is.
    """
    spans, problems, first = alignment.exposure, list(alignment.problems), 0
    usable = np.ones(len(spans), bool)
    for file in files.files:
        breaks = find_breaks(open_spikes(file.path, files.format))
        for one in breaks[:1]:
            reason = f"{one}{f' (and {len(breaks) - 1} more such places)' if len(breaks) > 1 else ''}"
            if manifest.continuity == "report":
                log.warning("%s: %s", file.path, reason)
                continue
            affected = (spans[:, 1] > first + one.frame) & (spans[:, 0] < first + file.num_frames)
            names = [name for name, is_hit in zip(alignment.frames, affected, strict=True) if is_hit]
            usable &= ~affected
            told = (
                f"frames {names[0]} to {names[-1]} are set aside" if names else "no exposure comes after it"
            )
            problems.append(Quarantined(str(file.path), f"{reason}; {told}"))
        first += file.num_frames
    return alignment.only(usable, problems)


def _flip_of(examined: Examined) -> FlipEvidence | None:
    """The clearest comparison of the first, middle and last frame with its spikes; None where there are no pictures."""
    frames = sorted({0, len(examined.alignment.frames) // 2, len(examined.alignment.frames) - 1})
    found = [evidence for k in frames if (evidence := _compare(examined, k)) is not None]
    return max(found, key=lambda evidence: abs(evidence.margin), default=None)


def _compare(examined: Examined, k: int) -> FlipEvidence | None:
    start, stop = map(int, examined.alignment.exposure[k])
    path = examined.blurry_paths[k]
    if path is None:
        path, middle = examined.sharp_paths[k], int(examined.alignment.sharp_index[k])
        start, stop = max(start, middle - SHARP_WINDOW), min(stop, middle + SHARP_WINDOW + 1)
    if path is None:
        return None
    counts = [stream.count(a, b) for stream, a, b in examined.files.parts(start, stop)]
    return flip_evidence(read_frame(path), np.sum(counts, axis=0))


def _decided_flip(examined: Examined, evidence: FlipEvidence | None) -> SpikeFormat:
    """The format with the flip that the pictures show.

    Raises:
        FormatError: they show another one than was declared.
    """
    fmt, place = examined.files.format, f"{examined.recording.split}/{examined.recording.source_name}"
    other = "none" if fmt.flip == "vertical" else "vertical"
    if evidence is not None and evidence.verdict is False:
        if examined.recording.finds_flip:
            return replace(fmt, flip=other)
        raise FormatError(
            f"{examined.files.paths[0]}: read with flip {fmt.flip!r}, as declared, the spikes are upside down: their"
            f" correlation with the pictures of {place} is {evidence.as_read:.3f}, and {evidence.upside_down:.3f} the"
            " other way",
            f"declare that, in the manifest or in the command: spikes.flip={other}",
        )
    if examined.recording.finds_flip and (evidence is None or evidence.verdict is None):
        why = "there is no picture to compare with" if evidence is None else "the pictures do not tell"
        log.warning("%s: flip %r is only the usual one: %s", place, fmt.flip, why)
    return fmt


def _check_images(examined: Examined) -> None:
    expected = examined.rgb_shape
    for path in (*examined.blurry_paths, *examined.sharp_paths):
        if path is not None and (found := frame_size(path)) != expected:
            raise FormatError(
                f"{path}: {found[0]}x{found[1]} pixels, expected {expected[0]}x{expected[1]}: the spikes'"
                f" {examined.spike_shape[0]}x{examined.spike_shape[1]} times {examined.scale}"
            )
    refuse_copied_files(examined.blurry_paths, examined.sharp_paths)


def common_scale(scales: Mapping[str, int]) -> int:
    """The one scale of all recordings, given that of each by its key.

    Raises:
        FormatError: they have several.
    """
    by_scale = {scale: key for key, scale in scales.items()}
    if len(by_scale) > 1:
        (a, first), (b, second), *_ = by_scale.items()
        raise FormatError(
            f"{first} has RGB frames {a} times the size of its spikes, {second} {b} times",
            "ingest them into separate stores",
        )
    return next(iter(by_scale))
