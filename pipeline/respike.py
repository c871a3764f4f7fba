"""Spike counts as another camera of the same kind would have counted them, to learn from sensors that differ.

A pixel with threshold m * theta fires at every m-th spike that it would fire with threshold theta, up to the charge it
starts with: both integrate the same light, and the subtractive reset keeps what is left. So from the cumulative counts
C of an exposure follow those of any whole multiple of the threshold, floor((C + phase) / m), and they are exact as long
as the recording did not saturate. The phase is the charge at the start in spikes, uniform in 0..m-1; nothing is known
of it between exposures. Other ratios are not offered, except as gains close to 1: a count does not say how much charge
was left after its last spike, and a gain makes up to one spike of that out of nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.respike_kernel import ADD_DARK, GAIN_BITS, LOSE, MOST_GAIN, MOST_THRESHOLD, REFIRE

_SHARES = ("lost_share", "dark_rate", "gain_spread", "dead_share", "hot_share")


def raise_threshold(counts: npt.NDArray[Any], phase: npt.NDArray[np.int32], threshold: int) -> None:
    """Change counts in place to those of a camera with `threshold` times the threshold that sees the same light.

    Args:
        counts: (T, K, H, W), uint8 or uint16, contiguous; bin 0 is the first of the exposure.
        phase: (T, H, W), the charge that each pixel starts an exposure with, in spikes, below `threshold`.

    Raises:
        ValueError: the shapes do not fit each other, or no such threshold.
    """
    if phase.shape != (len(counts), *counts.shape[2:]) or not counts.flags.c_contiguous:
        raise ValueError(f"counts {counts.shape} and phases {phase.shape} do not fit each other")
    if not 1 <= threshold <= MOST_THRESHOLD:
        raise ValueError(f"threshold {threshold}: expected 1 to {MOST_THRESHOLD}")
    planes = counts.reshape(*counts.shape[:2], -1)
    # No more spikes come out of a bin than were in it, so that its frames are no limit.
    frames = np.full(counts.shape[:2], np.iinfo(counts.dtype).max, np.int64)
    gain = np.full(planes.shape[2], 1 << GAIN_BITS, np.int32)
    REFIRE[counts.dtype.name](planes, frames, phase.reshape(len(phase), -1) << GAIN_BITS, gain, threshold)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeAugmentation:
    """How sensors that are drawn for training samples may differ from the one that recorded. The defaults: not at all.

    All but the threshold are drawn uniformly from 0 to what is given, for each sample anew. A sensor's gains and stuck
    pixels stay the same through the clip. Values to begin with: `thresholds: [1, 2, 4]`, `lost_share: 0.05`,
    `dark_rate: 0.002`, `gain_spread: 0.02`, `dead_share: 0.001`, `hot_share: 0.0002`.

    Attributes:
        thresholds: in units of the recording's, one of which is drawn; repeat one to draw it more often.
        lost_share: most of the spikes that get lost, each for itself.
        dark_rate: highest rate of spikes without light, per pixel and spike frame.
        gain_spread: largest standard deviation of the pixels' gains around 1.
        dead_share: most of the pixels that never fire.
        hot_share: most of the pixels that fire in every spike frame.

    Raises:
        ValueError: naming the field and its value.
    """

    thresholds: tuple[int, ...] = (1,)
    lost_share: float = 0.0
    dark_rate: float = 0.0
    gain_spread: float = 0.0
    dead_share: float = 0.0
    hot_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.thresholds or not all(1 <= value <= MOST_THRESHOLD for value in self.thresholds):
            raise ValueError(
                f"thresholds {list(self.thresholds)}: expected whole multiples of the recording's, "
                f"1 to {MOST_THRESHOLD}"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 0 and below 1")
        if self.dead_share + self.hot_share > 1:
            raise ValueError(f"dead_share {self.dead_share} and hot_share {self.hot_share} are more than all")

    @property
    def is_off(self) -> bool:
        """Whether every sensor is the one that recorded."""
        return set(self.thresholds) == {1} and not any(getattr(self, name) for name in _SHARES)

    def draw(self, rng: np.random.Generator) -> "DrawnSensor":
        """Draw a sensor. As many numbers are drawn whatever is switched off, so that one setting changes no other."""
        threshold = self.thresholds[int(rng.integers(len(self.thresholds)))]
        shares = {name: float(rng.random() * getattr(self, name)) for name in _SHARES}
        return DrawnSensor(threshold=threshold, **shares, seed=int(rng.integers(1 << 63)))


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSensor:
    """One sensor; its fields are those of `SpikeAugmentation`, drawn.

    Attributes:
        seed: of where and when it does what it does.
    """

    threshold: int
    lost_share: float
    dark_rate: float
    gain_spread: float
    dead_share: float
    hot_share: float
    seed: int

    def count_again(self, counts: npt.NDArray[Any], frames: npt.NDArray[np.int64]) -> None:
        """Change the counts of one clip in place to those of this sensor.

        No count exceeds the spike frames of its bin, one spike each. Time may run either way: every m-th spike,
        counted from a random one, is every m-th spike backwards as well.

        Args:
            counts: (T, K, H, W), uint8 or uint16, contiguous.
            frames: (T, K), spike frames of each bin.

        Raises:
            ValueError: the shapes do not fit each other, or a bin has more frames than a count can tell.
        """
        if frames.shape != counts.shape[:2] or not counts.flags.c_contiguous:
            raise ValueError(f"counts {counts.shape} and frames of bins {frames.shape} do not fit each other")
        if frames.max(initial=0) > np.iinfo(counts.dtype).max:
            raise ValueError(f"bins of {frames.max()} frames do not fit {counts.dtype}")
        kind, frames = counts.dtype.name, np.ascontiguousarray(frames, np.int64)
        planes = counts.reshape(*frames.shape, -1)
        pixels, rng = planes.shape[2], np.random.default_rng(self.seed)
        seeds = rng.integers(1 << 63, size=2, dtype=np.uint64)
        if self.threshold > 1 or self.gain_spread:
            gain = 1 + self.gain_spread * rng.standard_normal(pixels, np.float32)
            gain = np.rint(gain.clip(0, MOST_GAIN) * (1 << GAIN_BITS)).astype(np.int32)
            phase = rng.integers(self.threshold << GAIN_BITS, size=(len(planes), pixels), dtype=np.int32)
            REFIRE[kind](planes, frames, phase, gain, self.threshold)
        if self.lost_share:
            LOSE[kind](planes, self.lost_share, seeds[0])
        if self.dark_rate:
            ADD_DARK[kind](planes, frames, self.dark_rate, seeds[1])
        if self.dead_share or self.hot_share:
            chance = rng.random(pixels)
            planes[:, :, chance < self.dead_share] = 0
            planes[:, :, chance >= 1 - self.hot_share] = frames[:, :, None]
