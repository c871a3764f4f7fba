"""Which array of an `.npy` or `.npz` holds the spikes, and which of its axes is time: the spikes tell.

A pixel that has fired hardly ever fires in the next frame, while neighbouring pixels see the same light: along time,
neighbours are both set far less often than along the two axes of the picture. Height comes before width by convention;
a picture and its transpose are equally good pictures.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays import map_npy, npz_headers, read_npz
from pipeline.errors import FormatError
from pipeline.inputs import require_file
from pipeline.spike_format import SpikeFormat

AXES = ("THW", "HTW", "HWT")
"""By the axis that is time."""
LOOKED_AT = 256
"""Values along each axis that are looked at."""
RARER = 0.7
"""Neighbours in time are both set at most so often, compared with neighbours along the better of the other axes."""


def detect_axes(path: Path) -> SpikeFormat:
    """How a file's array of spikes is laid out; rate and flip of the format, which it does not show, mean nothing.

    Raises:
        FormatError: no array, or several, of three axes with zeros and ones; or none of the axes looks like time.
    """
    path = Path(path)
    require_file(path, "spike")
    arrays = {None: map_npy(path)} if path.suffix.lower() == ".npy" else _of_three_axes(path)
    spikes = {key: array for key, array in arrays.items() if _is_spikes(array)}
    if len(spikes) != 1:
        raise FormatError(
            f"{path}: {len(spikes)} arrays of three axes with zeros and ones, expected one",
            "declare the spike format, with its `key`",
        )
    ((key, array),) = spikes.items()
    together = [_both_set(array, axis) for axis in range(3)]
    time = int(np.argmin(together))
    if together[time] > RARER * sorted(together)[1]:
        shares = ", ".join(f"{share:.3f}" for share in together)
        raise FormatError(
            f"{path}: none of the axes of {array.shape} looks like time: neighbours along them are both set in {shares}"
            " of all cases",
            f"declare height, width and axes: {', '.join(AXES)} in some order",
        )
    height, width = (n for axis, n in enumerate(array.shape) if axis != time)
    return SpikeFormat(height=height, width=width, rate_hz=Fraction(1), axes=AXES[time], key=key)


def _of_three_axes(path: Path) -> dict[str | None, npt.NDArray[Any]]:
    headers = npz_headers(path)
    keys = [
        key for key, (shape, dtype) in headers.items() if len(shape) == 3 and dtype in (np.uint8, np.bool_)
    ]
    return {key: read_npz(path, key) for key in keys}


def _is_spikes(array: npt.NDArray[Any]) -> bool:
    if array.ndim != 3 or array.dtype not in (np.uint8, np.bool_) or not array.size:
        return False
    return int(array[:LOOKED_AT, :LOOKED_AT, :LOOKED_AT].max()) == 1


def _both_set(array: npt.NDArray[Any], axis: int) -> float:
    """The share of neighbours along an axis that are both set, of the neighbours the first of which is set."""
    some = np.moveaxis(array[:LOOKED_AT, :LOOKED_AT, :LOOKED_AT], axis, 0).astype(np.bool_)
    first = int(np.count_nonzero(some[:-1]))
    return int(np.count_nonzero(some[:-1] & some[1:])) / first if first else 1.0
