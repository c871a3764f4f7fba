"""Finding the files of a data set: which recordings it holds, which frames they have, where each file is.

Every path stays inside the root, and a declared file that is missing is an error (or, on request, its frame is set
aside): it is never replaced by another.
"""

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import FormatError
from pipeline.frames import frame_size
from pipeline.images import IMAGE_ENDINGS
from pipeline.layout import expand
from pipeline.manifest import Manifest
from pipeline.sequence_files import Finder, Recording, natural_order
from pipeline.spike_format import SpikeFormat
from pipeline.tree import Tree

logger = logging.getLogger(__name__)

MAX_LISTED = 8
"""Names in one message; the rest are counted."""


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
    found = [Finder(tree, manifest, *place, detected).recording(frames) for place, frames in chosen.items()]
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
    _tell(tree.root, found)
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
    height, width = frame_size(path)
    scale = width // fmt.valid_width if manifest.scale == "auto" else manifest.scale
    if not scale or (height, width) != (fmt.height * scale, fmt.valid_width * scale):
        raise FormatError(
            f"{path}: {height}x{width} is not {'a whole multiple of' if auto else f'{scale} times'}"
            f" the {fmt.height}x{fmt.valid_width} of the spikes",
            f"check height, width and scale in the manifest {manifest.name}",
        )
    return scale


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
        exact = dict.fromkeys(listed for listed in rule.sequences if not set(listed) & set("*?["))
        patterns = [listed for listed in rule.sequences if listed not in exact]
        if absent := [name for name in exact if name not in found]:
            logger.warning(
                "%s: split %s lacks %d sequences: %s", tree.root, split, len(absent), _shorten(absent, ", ")
            )
        for name in sorted(found, key=natural_order):
            if name not in exact and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
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
    images = layout.blurry or layout.sharp
    for pattern, endings in ((layout.spikes, ()), (images, IMAGE_ENDINGS)):
        for values in tree.matches(expand(pattern, split=folder), endings) if pattern else ():
            frames = found.setdefault(values.get("sequence", manifest.name), set())
            frames.update([_checked(values["frame"], tree.root, pattern)] if "frame" in values else [])
    return found


def _checked(frame: str, root: Path, pattern: str) -> str:
    if not frame.isprintable() or set(frame) & set("*?["):
        raise FormatError(
            f"{root / pattern}: {frame!r} cannot be the name of a frame",
            "rename its files, without '*', '?', '[' and without characters that cannot be printed",
        )
    return frame


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


def _tell(root: Path, recordings: Sequence[Recording]) -> None:
    """Warn of frames that the manifest leaves out, and of those that no training will draw."""
    left_out = [f"{one.split}/{one.source_name}/{frame}" for one in recordings for frame in one.left_out]
    if left_out:
        logger.warning(
            "%s: %d frames without a spike file are left out, as the manifest says (missing_spikes: leave_out): %s",
            root,
            len(left_out),
            _shorten(left_out, ", "),
        )
    in_train = [one for one in recordings if one.split == "train"]
    only_test = [
        f"{one.source_name} ({count} of {len(one.frames)})"
        for one in in_train
        if (count := sum(path is None for path in one.sharp_paths))
    ]
    if only_test:
        logger.warning(
            "%s: split train has frames without a sharp one, in %d sequences; training draws none of them, they are"
            " for testing only: %s",
            root,
            len(only_test),
            _shorten(only_test, ", "),
        )


def _shorten(items: Sequence[str], separator: str) -> str:
    more = [f"and {len(items) - MAX_LISTED} more"] if len(items) > MAX_LISTED else []
    return separator.join([*items[:MAX_LISTED], *more])
