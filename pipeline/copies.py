"""Sharp frames that are copies of the blurry ones: they fill a gap, and teach nothing."""

import filecmp
from collections.abc import Sequence

from pipeline.errors import FormatError
from pipeline.frames import FramePlace, file_of

Places = Sequence[FramePlace | None]


def refuse_copied_files(blurry: Places, sharp: Places) -> None:
    """Compare the files of each frame, byte by byte where they are of one size; a video only once.

    Raises:
        FormatError: a sharp file has the very bytes of the blurry one.
    """
    pairs = [(one, other) for one, other in zip(blurry, sharp, strict=True) if one and other]
    files = {(file_of(one), file_of(other)): other for one, other in reversed(pairs)}
    for (one, other), frame in reversed(files.items()):
        if one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, shallow=False):
            raise _copy(frame)


def refuse_copied_pixels(blurry_sums: Sequence[int], sharp_sums: Sequence[int], sharp: Places) -> None:
    """Compare checksums of the pixels of each frame, which tell a copy that was encoded anew.

    Raises:
        FormatError: a sharp frame has the very pixels of the blurry one.
    """
    for one, other, path in zip(blurry_sums, sharp_sums, sharp, strict=True):
        if path is not None and one == other:
            raise _copy(path)


def _copy(sharp: FramePlace) -> FormatError:
    return FormatError(
        f"{sharp}: the sharp frame has the very pixels of the blurry one",
        "remove the copy, and declare `missing_sharp: test_only` in the manifest if there is no sharp frame",
    )
