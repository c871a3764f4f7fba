"""Why frames do not fit the spikes of their exposures, found by trying what usually is wrong.

Flipped rows or columns, another frame's image, an exposure some spike frames earlier or later, a curve other than gamma
between light and image: whatever makes the fit clearly better is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.alignment.sweeps import Recorded
from pipeline.physics import LightFit, correlation, fit_light, grey_light, unclipped

LOW_R2 = 0.6
"""A fit that explains less is questioned: upright images of the same scene reach 0.8 and more, flipped ones 0.15."""
ATTAINABLE = 0.8
"""Where the counts' quantisation alone keeps R² below this, the scene is too flat or too dark for a low one to mean
anything."""
BETTER_BY = 0.15
TRIED_FRAMES = 3
OTHER_FRAMES = 8
SHIFT_STEPS = 8
LEVELS = 32
RISING = 0.8
"""Correlation of the levels of an image with the mean counts at them, from which on the counts rise with the image."""

Counts = npt.NDArray[np.integer]
Fits = Mapping[str, float]


class Recording(Protocol):
    """Frames and spikes of one recording; a sequence of a store is one.

    Attributes:
        num_frames: N.
        spike_shape: H and W.
        spikes: packed, (T, H, ceil(W / 8)) uint8, sliced by spike frame.
        blurry: (N, 3, H * scale, W * scale) uint8, indexed by frame.
        exposure: (N, 2) spans of spike frames.
    """

    @property
    def num_frames(self) -> int: ...

    @property
    def spike_shape(self) -> tuple[int, int]: ...

    @property
    def spikes(self) -> Any: ...

    @property
    def blurry(self) -> Any: ...

    @property
    def exposure(self) -> npt.NDArray[np.int64]: ...


def questionable(fits: Sequence[LightFit]) -> float | None:
    """The median R² of a sequence's frames if it is low where a higher one could be expected; else None."""
    telling = [fit.r2 for fit in fits if fit.attainable >= ATTAINABLE]
    if not telling or (median := float(np.median(telling))) >= LOW_R2:
        return None
    return median


def likely_cause(sequence: Recording, scale: int) -> str:
    """Try what may be wrong with a sequence on a few of its frames, and name what helps most.

    Args:
        scale: RGB pixels per spike pixel.
    """
    chosen = np.unique(np.linspace(0, sequence.num_frames - 1, TRIED_FRAMES).round().astype(int)).tolist()
    tried = [_try_all(sequence, scale, frame) for frame in chosen]
    gains = {
        cause: float(np.mean([one[cause] - one[_AS_IS] for one in tried]))
        for cause in set.intersection(*(set(one) for one in tried))
    }
    best = max(gains, key=lambda cause: gains[cause])
    if gains[best] >= BETTER_BY:
        return best
    return "nothing that was tried fits better: image and spikes may not show the same scene"


_AS_IS = "as it is"


def _try_all(sequence: Recording, scale: int, frame: int) -> Fits:
    """The best R² of each explanation for one frame."""
    recorded = Recorded(sequence.spikes, sequence.spike_shape[1], scale)
    assert sequence.blurry is not None
    image, span = sequence.blurry[frame], tuple(sequence.exposure[frame].tolist())
    counts = recorded.count(*span)

    def r2(of: Counts) -> float:
        return fit_light(image, of, scale).r2

    found = {_AS_IS: r2(counts)}
    found["the rows of the spikes are flipped: change `flip` in the spike format"] = r2(counts[::-1])
    found["the columns of the spikes are mirrored"] = r2(counts[:, ::-1])
    found["the spikes are turned by 180 degrees"] = r2(counts[::-1, ::-1])
    found["image values are neither linear nor of gamma 2.2, though they rise with the light"] = _curve_r2(
        image, counts, scale
    )
    if others := list(_other_frames(sequence, frame)):
        found["the spikes fit another frame's image: frames or logs are mixed up"] = max(
            fit_light(sequence.blurry[k], counts, scale).r2 for k in others
        )
    if shifts := list(_shifts(recorded, span)):
        found["an exposure some spike frames away fits: spk align --check tells how far"] = max(
            r2(recorded.count(span[0] + d, span[1] + d)) for d in shifts
        )
    return found


def _curve_r2(image: npt.NDArray[np.uint8], counts: Counts, scale: int) -> float:
    """Share of the counts' variance that the image explains by a rising curve of any form: one of `LEVELS` steps."""
    usable = unclipped(image, scale)
    grey, spikes = grey_light(image, scale)[usable], counts[usable].astype(np.float64)
    level = np.searchsorted(np.quantile(grey, np.arange(1, LEVELS) / LEVELS), grey, side="right")
    number = np.bincount(level, minlength=LEVELS)
    means = np.bincount(level, spikes, LEVELS)[number > 0] / number[number > 0]
    variance = float(spikes.var())
    if not variance > 0 or correlation(np.arange(len(means)), means) < RISING:
        return 0.0
    return float((number[number > 0] * (means - spikes.mean()) ** 2).sum()) / (variance * len(spikes))


def _other_frames(sequence: Recording, frame: int) -> Iterator[int]:
    near = range(max(0, frame - OTHER_FRAMES // 2), min(sequence.num_frames, frame + OTHER_FRAMES // 2 + 1))
    return (k for k in near if k != frame)


def _shifts(recorded: Recorded, span: tuple[int, ...]) -> Iterator[int]:
    """Shifts up to the length of the exposure, in a few steps, as far as the recording reaches."""
    start, stop = span
    steps = range(-SHIFT_STEPS, SHIFT_STEPS + 1)
    shifts = {round((stop - start) * n / SHIFT_STEPS) for n in steps} - {0}
    return (d for d in sorted(shifts) if start + d >= 0 and stop + d <= recorded.spikes.shape[0])
