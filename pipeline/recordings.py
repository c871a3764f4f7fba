"""Finding the files of a data set: which recordings it holds, which frames they have, where each file is.

Every path stays inside the root, and a declared file that is missing is an error (or, on request, its frame is set
aside): it is never replaced by another.
"""

import fnmatch
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import build
from pipeline.dat import open_spikes
from pipeline.detection import detect_format
from pipeline.errors import FormatError
from pipeline.images import image_size
from pipeline.layout import expand
from pipeline.manifest import Manifest
from pipeline.reports import Quarantined
from pipeline.spike_format import AutoFormat, SpikeFormat
from pipeline.tree import Tree
from pipeline.yaml_files import read_yaml

logger = logging.getLogger(__name__)

MAX_LISTED = 8
"""Names in one message; the rest are counted."""


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
        blurry_paths, sharp_paths: per frame; None where there is no such image and there need not be.
        log_path: the alignment log, with the exposure rule log.
        format: layout of the spike files; None where they were to show it and there are none.
        finds_flip: whether the flip in it is only the usual one, and to be decided against the RGB frames.
        problems: files that are missing, each with the frame or the whole recording set aside for it.
    """

    split: str
    sequence: str
    source_name: str
    spike_paths: tuple[Path, ...]
    listed: tuple[str, ...]
    frames: tuple[str, ...]
    blurry_paths: tuple[Path | None, ...]
    sharp_paths: tuple[Path | None, ...]
    log_path: Path | None
    format: SpikeFormat | None
    finds_flip: bool = False
    problems: tuple[Quarantined, ...] = ()

    @property
    def key(self) -> str:
        """Its place in the store, "split/sequence"."""
        return f"{self.split}/{self.sequence}"


def find_recordings(manifest: Manifest, root: Path, *, quarantine: bool = False) -> tuple[Recording, ...]:
    """Every recording of the data set under `root`, by split and then by name.

    Args:
        quarantine: set frames with missing files aside in the `problems` of their recording instead of raising.

    Raises:
        FormatError: nothing found; declared files missing, each named; a sequence in two splits, or two sequences
            whose names become one in the store.
        UsageError: a file leads out of the root.
    """
    tree = Tree(Path(root))
    chosen = _choose_sequences(tree, manifest)
    detected: dict[str, SpikeFormat] = {}
    found = [_Finder(tree, manifest, *place, detected).recording(frames) for place, frames in chosen.items()]
    if not found:
        folders = "|".join(manifest.folder_of(split) for split in manifest.splits)
        looked = expand(manifest.layout.blurry or manifest.layout.spikes, split=folders)
        raise FormatError(
            f"{root}: no recordings of {manifest.name}: nothing fits {looked}",
            "give the folder above these files, and the manifest of their layout",
        )
    problems = [f"{problem.path}: {problem.reason}" for recording in found for problem in recording.problems]
    if problems and not quarantine:
        raise FormatError(
            _shorten(problems, "\n"), "restore the files, or set the frames aside with --quarantine"
        )
    _refuse_collisions(found)
    return tuple(found)


def scale_of(recording: Recording, manifest: Manifest) -> int:
    """RGB pixels per spike pixel along each side, from the header of the first image; 1 if there is no image.

    Raises:
        FormatError: not the same whole number in height and width, or not the one the manifest declares.
    """
    fmt, auto = recording.format, manifest.scale == "auto"
    assert fmt is not None
    path = next(
        (path for path in (*recording.blurry_paths, *recording.sharp_paths) if path is not None), None
    )
    if path is None:
        return 1 if manifest.scale == "auto" else manifest.scale
    height, width = image_size(path)
    scale = width // fmt.valid_width if manifest.scale == "auto" else manifest.scale
    if not scale or (height, width) != (fmt.height * scale, fmt.valid_width * scale):
        raise FormatError(
            f"{path}: {height}x{width} is not {'a whole multiple of' if auto else f'{scale} times'}"
            f" the {fmt.height}x{fmt.valid_width} of the spikes",
            f"check height, width and scale in the manifest {manifest.name}",
        )
    return scale


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key by which 7 comes before 14, and 0007 before 0007_002."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = [int(number) for number in parts[1::2]]
    return parts, name


def _choose_sequences(tree: Tree, manifest: Manifest) -> dict[tuple[str, str], set[str]]:
    """(split, sequence) of every sequence that a split claims, and the frames that files name."""
    in_folder: dict[str, dict[str, set[str]]] = {}
    claimed: dict[tuple[str, str], str] = {}
    chosen: dict[tuple[str, str], set[str]] = {}
    for split, rule in manifest.splits.items():
        folder = manifest.folder_of(split)
        if folder not in in_folder:
            in_folder[folder] = _named_frames(tree, manifest, folder)
        found = in_folder[folder]
        names = [listed for listed in rule.sequences if not set(listed) & set("*?[")]
        if absent := [name for name in names if name not in found]:
            logger.warning(
                "%s: split %s lacks %d sequences: %s", tree.root, split, len(absent), _shorten(absent, ", ")
            )
        for name in sorted(found, key=natural_order):
            if not any(fnmatch.fnmatchcase(name, listed) for listed in rule.sequences):
                continue
            if (other := claimed.setdefault((folder, name), split)) != split:
                raise FormatError(f"{tree.root}: sequence {name} is in the splits {other} and {split}")
            chosen[split, name] = found[name]
    left = [name for folder, found in in_folder.items() for name in found if (folder, name) not in claimed]
    if left:
        logger.warning("%s: %d sequences are in no split: %s", tree.root, len(left), _shorten(left, ", "))
    return chosen


def _named_frames(tree: Tree, manifest: Manifest, folder: str) -> dict[str, set[str]]:
    """Sequences by name, with the frames that spike files and images name; sharp ones only if no others do."""
    layout = manifest.layout
    found: dict[str, set[str]] = {}
    for pattern in (layout.spikes, layout.blurry or layout.sharp):
        for values in tree.matches(expand(pattern, split=folder)) if pattern else ():
            frames = found.setdefault(values.get("sequence", manifest.name), set())
            frames.update([values["frame"]] if "frame" in values else [])
    return found


class _Finder:
    """Finds the files of one sequence, and keeps account of those that are missing."""

    def __init__(
        self, tree: Tree, manifest: Manifest, split: str, name: str, detected: dict[str, SpikeFormat]
    ) -> None:
        """`detected` is shared: what the first recording of a split shows, and all others are held to."""
        self.tree, self.manifest, self.split, self.name = tree, manifest, split, name
        self.detected = detected
        self.problems: list[Quarantined] = []

    def recording(self, named: Iterable[str]) -> Recording:
        layout = self.manifest.layout
        per_frame = "{frame}" in layout.spikes
        declared = self.declared_format()
        stream = None if per_frame else self.require("spike stream", layout.spikes)
        log_path = self.require("alignment log", layout.log) if layout.log else None
        frames = sorted(named, key=natural_order)
        first = self.find("spike file", layout.spikes, frames[0]) if per_frame and frames else stream
        fmt = self.format(declared, first)
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
            problems=tuple(self.problems),
        )

    def files_of(self, frame: str) -> tuple[str, Path | None, Path | None, Path | None] | None:
        """(frame, spikes, blurry, sharp), or None when one of them is missing."""
        layout, before = self.manifest.layout, len(self.problems)
        spikes = self.require("spike file", layout.spikes, frame) if "{frame}" in layout.spikes else None
        blurry = self.require("blurry frame", layout.blurry, frame) if layout.blurry else None
        sharp = None
        if layout.sharp:
            needed = self.manifest.missing_sharp == "error"
            find = self.require if needed else self.find
            sharp = find("sharp frame", layout.sharp, frame)
        return (frame, spikes, blurry, sharp) if len(self.problems) == before else None

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

    def find(self, what: str, pattern: str, frame: str = "") -> Path | None:
        return self.tree.find(self._path(pattern, frame))

    def require(self, what: str, pattern: str, frame: str = "") -> Path | None:
        path = self.find(what, pattern, frame)
        if path is None:
            where = f"frame {frame} of " if frame else ""
            reason = f"no such file: the {what} of {where}{self.split}/{self.name}"
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


def _refuse_collisions(recordings: Sequence[Recording]) -> None:
    names: dict[tuple[str, str], str] = {}
    for recording in recordings:
        other = names.setdefault((recording.split, recording.sequence), recording.source_name)
        if other != recording.source_name:
            raise FormatError(
                f"sequences {other} and {recording.source_name} of split {recording.split} both become"
                f" {recording.sequence} in the store",
                "rename one of them",
            )


def _shorten(items: Sequence[str], separator: str) -> str:
    more = [f"and {len(items) - MAX_LISTED} more"] if len(items) > MAX_LISTED else []
    return separator.join([*items[:MAX_LISTED], *more])
