"""Sharp frames that are copies of the blurry ones: they fill a gap, and teach nothing."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import FormatError

Paths = Sequence[Path | None]


def refuse_copied_files(blurry: Paths, sharp: Paths) -> None:
    """Compare the files of each frame, byte by byte where they are of one size.

    Raises:
        FormatError: a sharp file has the very bytes of the blurry one.
    """
    for one, other in zip(blurry, sharp, strict=True):
        if one is None or other is None or one.stat().st_size != other.stat().st_size:
            continue
        if filecmp.cmp(one, other, shallow=False):
            raise _copy(other)


def refuse_copied_pixels(blurry_sums: Sequence[int], sharp_sums: Sequence[int], sharp: Paths) -> None:
    """Compare checksums of the pixels of each frame, which tell a copy that was encoded anew.

    Raises:
        FormatError: a sharp frame has the very pixels of the blurry one.
    """
    for one, other, path in zip(blurry_sums, sharp_sums, sharp, strict=True):
        if path is not None and one == other:
            raise _copy(path)


def _copy(sharp: Path) -> FormatError:
    return FormatError(
        f"{sharp}: the sharp frame has the very pixels of the blurry one",
        "remove the copy, and declare `missing_sharp: test_only` in the manifest if there is no sharp frame",
    )
