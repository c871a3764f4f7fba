"""A recording whose files a user names one by one: what a manifest and a search through folders would say of it.

What is not told is found from the files or assumed, and what was assumed is said.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.dat import open_spikes
from pipeline.errors import FormatError, UsageError
from pipeline.images import IMAGE_ENDINGS
from pipeline.inputs import require_file
from pipeline.logs.timestamps import ExposureLog, read_log
from pipeline.manifest import Exposure, Manifest, read_manifest
from pipeline.own_settings import (
    SPLIT,
    OwnFiles,
    declared_format,
    fill_windows,
    manifest_of,
    told_exposure,
    told_in,
)
from pipeline.recognition.detection import detect_format
from pipeline.sequence_files import Recording, natural_order
from pipeline.spike_format import AutoFormat
from pipeline.video import VIDEO_ENDINGS, Video, VideoFrame, open_video

SPIKE_ENDINGS = (".dat", ".npy", ".npz")
MAX_LISTED = 8
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a frame may be called, as files will be called after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSetup:
    """How a recording is to be read, as `examine.examine_recording` takes it.

    Attributes:
        is_timed: whether its spike frames per second are known; otherwise its nanoseconds mean nothing.
        video_hz: the frame rate that the video file declares.
        assumed: what was neither told nor found, a line each.
    """

    recording: Recording
    manifest: Manifest
    is_timed: bool
    video_hz: Fraction | None
    assumed: tuple[str, ...]


def set_up(files: OwnFiles) -> OwnSetup:
    """Find out how the files are to be read.

    Raises:
        UsageError: nothing says when the frames were exposed, or two things say so.
        ConfigError: settings or manifest are wrong.
        FormatError: files are missing, or not what they are called; the spikes do not show their format.
        AlignmentError: the log cannot be read.
    """
    base = read_manifest(files.manifest) if files.manifest else None
    video = None if files.video.is_dir() else _open_video(files.video)
    images = _by_stem(files.video, IMAGE_ENDINGS, "images") if video is None else {}
    spikes = _by_stem(files.spikes, SPIKE_ENDINGS, "spike files") if files.spikes.is_dir() else None
    declared, flip_told, is_timed = declared_format(files, base, spikes)
    first = next(iter(spikes.values())) if spikes else files.spikes
    fmt = detect_format(first, declared) if isinstance(declared, AutoFormat) else declared
    exposure, from_manifest = told_exposure(files, base, one_each=spikes is not None)
    assumed = []
    if exposure["rule"] == "every" and not from_manifest:
        exposure.setdefault("numbering", {"source": "order"})
        assumed += fill_windows(
            exposure, files, len(open_spikes(first, fmt)), video.length if video else len(images)
        )
    if exposure["rule"] == "whole_file" and not from_manifest and "rule" not in told_in(files, "exposure"):
        assumed.append("each spike file is the exposure of its RGB frame, all of it: rule=whole_file")
    manifest = manifest_of(files, base, fmt, exposure)
    log = _read_log(files, manifest.exposure, is_timed) if files.log else None
    sequence = _sequence(files, log)
    frames = tuple(images) if video is None else _video_frames(video, log, sequence)
    return OwnSetup(
        recording=Recording(
            split=SPLIT,
            sequence=sequence.replace("/", "__"),
            source_name=sequence,
            spike_paths=(first,)
            if spikes is None
            else _one_each(files, spikes, frames, by_name=video is None),
            listed=frames,
            frames=frames,
            blurry_paths=tuple(images.values()) or tuple(VideoFrame(video, k) for k in range(video.length)),
            sharp_paths=(None,) * len(frames),
            log_path=files.log,
            format=fmt,
            finds_flip=not flip_told,
        ),
        manifest=manifest,
        is_timed=is_timed,
        video_hz=video.rate_hz if video else None,
        assumed=tuple(assumed),
    )


def _open_video(path: Path) -> Video:
    if path.suffix.lower() in VIDEO_ENDINGS:
        return open_video(path)
    require_file(path, "video")
    raise FormatError(
        f"{path}: neither a folder of images nor a video ({' '.join(VIDEO_ENDINGS)})",
        "for one image, give the folder that it is in",
    )


def _by_stem(folder: Path, endings: tuple[str, ...], what: str) -> dict[str, Path]:
    """The files of a folder with one of these endings, by their names without it, in numerical order."""
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in endings and not path.name.startswith("."):
            other = found.setdefault(path.stem, path)
            if other != path:
                raise FormatError(
                    f"{folder}: {other.name} and {path.name} are both called {path.stem}", "remove one"
                )
    if not found:
        raise FormatError(f"{folder}: no {what} ({' '.join(endings)})", "give the folder that holds them")
    return {stem: found[stem] for stem in sorted(found, key=natural_order)}


def _one_each(
    files: OwnFiles, spikes: Mapping[str, Path], frames: Sequence[str], *, by_name: bool
) -> tuple[Path, ...]:
    """The spike file of every frame: of its name, or, as the frames of a video have none, in the same order."""
    if by_name and set(spikes) != set(frames):
        without = [str(files.video / name) for name in frames if name not in spikes]
        extra = [str(path) for name, path in spikes.items() if name not in frames]
        problem = f"{_some(without)}: no spike file of that name in {files.spikes}" if without else ""
        problem = problem or f"{_some(extra)}: no image of that name in {files.video}"
        raise FormatError(
            problem, "give every image and its spike file one name, and remove what is left over"
        )
    if len(spikes) != len(frames):
        raise FormatError(
            f"{files.spikes}: {len(spikes)} spike files for the {len(frames)} frames of {files.video}",
            "one for each is needed",
        )
    return tuple(spikes[name] for name in frames) if by_name else tuple(spikes.values())


def _read_log(files: OwnFiles, exposure: Exposure, is_timed: bool) -> ExposureLog:
    assert files.log is not None
    stamp = exposure.clock.stamp or "start"
    log = read_log(files.log, exposure.dialect, quarantine=True, columns=exposure.timestamps, stamp=stamp)
    if log.unit == "ns" and not is_timed:
        raise UsageError(
            f"{log.path} tells times, and nothing says how many spike frames there are to a second",
            "add rate_hz=20000, or whatever the rate of the spike camera was",
        )
    return log


def _sequence(files: OwnFiles, log: ExposureLog | None) -> str:
    """What the recording is called."""
    named = [name for name in (log.sequences if log else ()) if name is not None]
    if files.sequence or len(named) == 1:
        return files.sequence or named[0]
    if named and log:
        raise UsageError(
            f"{log.path}: is about {len(named)} sequences: {_some(named)}",
            f"say which: --sequence {named[0]}",
        )
    return files.video.resolve().name if files.video.is_dir() else files.video.stem


def _video_frames(video: Video, log: ExposureLog | None, sequence: str) -> tuple[str, ...]:
    """Names for the frames of a video: those that the log has for as many frames, else their numbers from 000000."""
    if log is not None and not log.by_order:
        bad = {row.frame for row in log.bad_of(sequence) if row.frame}
        named = {*log.of(sequence), *bad}
        if len(named) == video.length and all(map(_FILE_NAME.fullmatch, named)):
            return tuple(sorted(named, key=natural_order))
    return tuple(f"{k:06d}" for k in range(video.length))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = [f"and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return ", ".join([*names[:MAX_LISTED], *more])
