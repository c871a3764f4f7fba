"""The files of one sequence of a data set: which frames it has, and where each of them is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.camera_facts import read_camera
from pipeline.config import build
from pipeline.dat import open_spikes
from pipeline.errors import FormatError
from pipeline.frames import FramePlace
from pipeline.images import IMAGE_ENDINGS
from pipeline.layout import expand, is_video
from pipeline.manifest import Manifest
from pipeline.recognition.detection import detect_format
from pipeline.reports import Quarantined
from pipeline.spike_format import AutoFormat, SpikeFormat
from pipeline.tree import Tree
from pipeline.video import Video, VideoFrame, open_video
from pipeline.yaml_files import read_yaml

P = TypeVar("P", bound=FramePlace)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """The files of one sequence.

    Attributes:
        split: its split in the store.
        sequence: its name there: the source's name with '__' for '/'.
        source_name: its name on disk, below its split.
        spike_paths: one file; or, where the manifest names spike files by frame, one per frame.
        listed: names of all its frames, in numerical order.
        frames: those of them whose files are all there; the others are set aside.
        blurry_paths, sharp_paths: per frame an image file or a frame of a video; None where there is no such image
            and there need not be.
        log_path: the alignment log, with the exposure rule log.
        format: layout of the spike files; None where they were to show it and there are none.
        finds_flip: whether the flip in it is only the usual one, and to be decided against the RGB frames.
        camera: facts about the spike camera, where there is a file of them.
        problems: files that are missing, each with the frame or the whole recording set aside for it.
        left_out: names of the frames without a spike file that the manifest says to leave out.
    """

    split: str
    sequence: str
    source_name: str
    spike_paths: tuple[Path, ...]
    listed: tuple[str, ...]
    frames: tuple[str, ...]
    blurry_paths: tuple[FramePlace | None, ...]
    sharp_paths: tuple[FramePlace | None, ...]
    log_path: Path | None
    format: SpikeFormat | None
    finds_flip: bool = False
    camera: Mapping[str, Any] | None = None
    problems: tuple[Quarantined, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its place in the store, "split/sequence"."""
        return f"{self.split}/{self.sequence}"


class Finder:
    """Finds the files of one sequence, and keeps account of those that are missing."""

    def __init__(
        self, tree: Tree, manifest: Manifest, split: str, name: str, detected: dict[str, SpikeFormat]
    ) -> None:
        """`detected` is shared: what the first recording of a split shows, and all others are held to."""
        self.tree, self.manifest, self.split, self.name = tree, manifest, split, name
        self.detected = detected
        self.problems: list[Quarantined] = []
        self.left_out: list[str] = []
        self.videos: dict[str, Video | None] = {}

    def recording(self, named: Iterable[str]) -> Recording:
        layout = self.manifest.layout
        declared = self.declared_format()
        per_frame = "{frame}" in layout.spikes
        stream = None if per_frame else self.require("spike stream", layout.spikes)
        log_path = self.require("alignment log", layout.log) if layout.log else None
        for kind, pattern in (("blurry", layout.blurry), ("sharp", layout.sharp)):
            if pattern and is_video(pattern):
                needed = kind == "blurry" or self.manifest.missing_sharp == "error"
                path = (self.require if needed else self.find)(f"{kind} video", pattern)
                self.videos[pattern] = open_video(path) if path else None
        named = {*named, *self.video_frames()}
        frames = sorted(named, key=natural_order)
        fmt = self.format(declared, stream or self.first_of(frames))
        if not (per_frame or layout.blurry or layout.sharp) and stream is not None and fmt is not None:
            frames = _windows_of_stream(self.manifest, stream, fmt)
        rows = [] if self.problems else [row for frame in frames if (row := self.files_of(frame))]
        if not rows and not self.problems:
            self.problems.append(Quarantined(f"{self.split}/{self.name}", "no frames"))
        return Recording(
            split=self.split,
            sequence=_store_name(self.name),
            source_name=self.name,
            spike_paths=tuple(row[1] for row in rows if row[1]) if per_frame else (stream,) if stream else (),
            listed=tuple(frames),
            frames=tuple(row[0] for row in rows),
            blurry_paths=tuple(row[2] for row in rows),
            sharp_paths=tuple(row[3] for row in rows),
            log_path=log_path,
            format=fmt,
            finds_flip=isinstance(declared, AutoFormat) and declared.flip == "auto",
            camera=self.camera(),
            problems=tuple(self.problems),
            left_out=tuple(self.left_out),
        )

    def video_frames(self) -> list[str]:
        """The names of the frames in the video that names them, if one does."""
        video = self.videos.get(self.manifest.layout.blurry or self.manifest.layout.sharp or "")
        lengths = {found.length: found.path for found in self.videos.values() if found}
        if len(lengths) > 1:
            (a, one), (b, other) = lengths.items()
            raise FormatError(f"{one} has {a} frames, {other} {b}", "they must show the same frames")
        return [f"{k:06d}" for k in range(video.length)] if video else []

    def files_of(self, frame: str) -> tuple[str, Path | None, FramePlace | None, FramePlace | None] | None:
        """(frame, spikes, blurry, sharp), or None when one of them is missing."""
        layout, before = self.manifest.layout, len(self.problems)
        spikes = None
        if "{frame}" in layout.spikes:
            if self.manifest.missing_spikes == "leave_out" and not self.find(
                "spike file", layout.spikes, frame
            ):
                self.left_out.append(frame)
                return None
            spikes = self.require("spike file", layout.spikes, frame)
        blurry = self.require_image("blurry frame", layout.blurry, frame) if layout.blurry else None
        sharp = None
        if layout.sharp:
            needed = self.manifest.missing_sharp == "error"
            find = self.require_image if needed else self.find_image
            sharp = find("sharp frame", layout.sharp, frame)
        return (frame, spikes, blurry, sharp) if len(self.problems) == before else None

    def first_of(self, frames: Iterable[str]) -> Path | None:
        """The first spike file there is of a sequence with one for each frame."""
        per_frame = "{frame}" in self.manifest.layout.spikes
        found = (self.find("spike file", self.manifest.layout.spikes, frame) for frame in frames if per_frame)
        return next((path for path in found if path is not None), None)

    def format(self, declared: SpikeFormat | AutoFormat, stream: Path | None) -> SpikeFormat | None:
        """The declared format, or what the first stream of the split shows."""
        if isinstance(declared, SpikeFormat):
            return declared
        if self.split not in self.detected and stream is not None:
            self.detected[self.split] = detect_format(stream, declared)
        return self.detected.get(self.split)

    def declared_format(self) -> SpikeFormat | AutoFormat:
        """The format file where there is one, else what the manifest declares."""
        declared, pattern = self.manifest.format_of(self.split), self.manifest.layout.format
        path = self.find("format", pattern) if pattern else None
        if path is not None:
            return build(SpikeFormat, read_yaml(path), str(path))
        if declared is None:
            raise FormatError(
                f"{self._path(pattern or '')}: no such file: the spike format of {self.split}/{self.name}",
                "write it there (height, width, rate_hz), or declare `spikes` in the manifest",
            )
        return declared

    def camera(self) -> Mapping[str, Any] | None:
        """The facts about the spike camera, where there is a file of them."""
        pattern = self.manifest.layout.camera
        path = self.find("camera", pattern) if pattern else None
        return None if path is None else read_camera(path)

    def find(self, what: str, pattern: str, frame: str = "") -> Path | None:
        return self.tree.find(self._path(pattern, frame))

    def find_image(self, what: str, pattern: str, frame: str) -> FramePlace | None:
        video = self.videos.get(pattern)
        if video is None:
            return self.tree.find(self._path(pattern, frame), IMAGE_ENDINGS)
        there = frame.isdecimal() and int(frame) < video.length and frame == f"{int(frame):06d}"
        return VideoFrame(video, int(frame)) if there else None

    def require_image(self, what: str, pattern: str, frame: str) -> FramePlace | None:
        place = self.find_image(what, pattern, frame)
        return self.required(place, what, pattern, frame)

    def require(self, what: str, pattern: str, frame: str = "") -> Path | None:
        return self.required(self.find(what, pattern, frame), what, pattern, frame)

    def required(self, path: P | None, what: str, pattern: str, frame: str) -> P | None:
        if path is None:
            where = f"frame {frame} of " if frame else ""
            none = "no such frame" if self.videos.get(pattern) else "no such file"
            reason = f"{none}: the {what} of {where}{self.split}/{self.name}"
            self.problems.append(Quarantined(str(self.tree.root / self._path(pattern, frame)), reason))
        return path

    def _path(self, pattern: str, frame: str = "") -> str:
        return expand(pattern, split=self.manifest.folder_of(self.split), sequence=self.name, frame=frame)


def _windows_of_stream(manifest: Manifest, stream: Path, fmt: SpikeFormat) -> list[str]:
    """A number for every window of the exposure rule `every` that lies wholly in the stream."""
    window = manifest.exposure.window or 1
    count = (len(open_spikes(stream, fmt)) - window) // (manifest.exposure.stride or window) + 1
    return [f"{k:06d}" for k in range(max(0, count))]


def _store_name(name: str) -> str:
    stored = name.replace("/", "__")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", stored):
        raise FormatError(
            f"sequence {name!r} cannot be the name of a group in the store",
            "rename its folder: letters, digits, '.', '_' and '-', a letter or digit first",
        )
    return stored


def natural_order(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A sort key by which 7 comes before 14, and 0007 before 0007_002; numbers may have any number of digits."""
    parts: list[str | tuple[int, str]] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = [
        (len(number), number) for number in (text.lstrip("0") for text in re.findall("[0-9]+", name))
    ]
    return parts, name
