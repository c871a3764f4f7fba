"""One exposure, as the cameras saw it and as a method restored it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """What the cameras saw in one exposure, all on one device.

    Attributes:
        blurry: (3, H, W) uint8.
        sharp: (3, H, W) uint8; None where there is none.
        before: the sharp frame of the exposure before it; None without one, and for the first exposure of a run.
        counts: (K, H / scale, W / scale), spikes per bin.
        frames_per_bin: K numbers of spike frames.
        instant: of the sharp frame, in spike frames from the start of the exposure.
        scale: RGB pixels per spike pixel, along a side.
    """

    blurry: Tensor
    sharp: Tensor | None
    before: Tensor | None = None
    counts: Tensor
    frames_per_bin: Sequence[int]
    instant: float
    scale: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One method's frame.

    Attributes:
        image: (3, H, W) float32, about [0, 1], as the method gave it.
        rgb8: (3, H, W) uint8, clamped and rounded.
        before: `rgb8` of the exposure before it; None for the first exposure of a run.
    """

    image: Tensor
    rgb8: Tensor
    before: Tensor | None = None
    _known: dict["Measure", float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def measured(self, measure: "Measure", shot: Shot) -> float:
        """What `measure` gives of this frame, which was taken in `shot`; computed once, for all who ask."""
        if measure not in self._known:
            self._known[measure] = measure(self, shot)
        return self._known[measure]


Measure = Callable[[Candidate, Shot], float]
"""One number of one frame; NaN where it is not defined."""
