"""Where the files of a data set are: path patterns, expanded to paths and matched against them.

A pattern is relative to the root of the data set. It may use `{split}`, `{sequence}` (which may span directories),
`{frame}` and, in the file's name, `*` for any characters. For images `.*` at the end is any ending of an image, in
upper or lower case.
"""

import re
import string
from dataclasses import dataclass, fields
from pathlib import PurePosixPath

from pipeline.files import can_be_path
from pipeline.video import VIDEO_ENDINGS

PLACEHOLDERS = ("split", "sequence", "frame")
MOST_STARS = 2
_GROUPS = {"split": "[^/]+", "sequence": ".+", "frame": "[^/]+"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where files are, as patterns relative to the root.

    Attributes:
        spikes: the spike stream of a sequence; or of one frame, when it names `{frame}`.
        blurry: one image per frame, which names the frames; or, without `{frame}`, one video per sequence, whose
            frames are named 000000, 000001, ...; None when the data set has none.
        sharp: the same; images of other frames are not used. Without `blurry` it names the frames.
        log: alignment log, of one sequence or of all of them.
        format: YAML file of a `SpikeFormat`, for one sequence or all; where it exists it goes before `spikes`.
        camera: YAML file about the spike camera, of one sequence or of all, kept in the store where it exists.
    """

    spikes: str
    blurry: str | None = None
    sharp: str | None = None
    log: str | None = None
    format: str | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            if (pattern := getattr(self, item.name)) is not None:
                _check_pattern(item.name, pattern)
        for name in ("blurry", "sharp"):
            pattern = getattr(self, name)
            if pattern is not None and ("{frame}" in pattern) == is_video(pattern):
                raise ValueError(
                    f"{name} {pattern!r} must name {{frame}}, or be one video with all frames of a sequence"
                    f" ({' '.join(VIDEO_ENDINGS)})"
                )
            if pattern is not None and ("{sequence}" in pattern) != ("{sequence}" in self.spikes):
                raise ValueError(f"{{sequence}} must be in both or neither of spikes and {name}")
        for name in ("log", "format", "camera"):
            if "{frame}" in (getattr(self, name) or ""):
                raise ValueError(f"{name} must not name {{frame}}: there is one per sequence or one for all")


def is_video(pattern: str) -> bool:
    """Does a pattern name a video file, by its ending?"""
    return pattern.lower().endswith(VIDEO_ENDINGS)


def expand(pattern: str, **values: str) -> str:
    """Put the given values into a pattern and leave its other placeholders and `*` as they are."""
    return pattern.format(**{name: values.get(name, f"{{{name}}}") for name in PLACEHOLDERS})


def fixed_folder(pattern: str) -> str:
    """The folders at the beginning of a pattern that hold no placeholder: where to look for its files."""
    parts = PurePosixPath(pattern).parts[:-1]
    variable = (i for i, part in enumerate(parts) if "{" in part)
    return "/".join(parts[: next(variable, len(parts))])


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for whole relative paths, with a named group for each placeholder."""
    text, seen = "", set()
    for literal, placeholder, _, _ in string.Formatter().parse(pattern):
        text += re.escape(literal).replace(r"\*", "[^/]*")
        if placeholder in seen:
            text += f"(?P={placeholder})"
        elif placeholder is not None:
            text += f"(?P<{placeholder}>{_GROUPS[placeholder]})"
            seen.add(placeholder)
    return re.compile(text, re.DOTALL)  # a name with a line break is found as well, and then refused


def _check_pattern(name: str, pattern: str) -> None:
    parts = PurePosixPath(pattern).parts
    climbs = not parts or pattern.startswith("/") or ".." in parts
    if climbs or "\\" in pattern or not can_be_path(pattern):
        raise ValueError(f"{name} {pattern!r} must be a path inside the root, with '/' and without '..'")
    if "{{" in pattern or "}}" in pattern:
        raise ValueError(f"{name} {pattern!r} must not double its braces")
    if any("*" in part for part in parts[:-1]):
        raise ValueError(f"{name} {pattern!r} may have '*' in the file's name only")
    if pattern.count("*") > MOST_STARS:  # matching tries every way to divide a name among them
        raise ValueError(f"{name} {pattern!r} may have '*' {MOST_STARS} times at most")
    for _, placeholder, spec, conversion in string.Formatter().parse(pattern):
        if placeholder is not None and (placeholder not in PLACEHOLDERS or spec or conversion):
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(f"{name} {pattern!r}: {{{placeholder}}} is not one of {known}")
