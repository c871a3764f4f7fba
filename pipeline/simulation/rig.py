"""Two cameras that film one scene: a spike camera that never stops and an RGB camera with a shutter."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.simulation.camera import Sensor, SpikeCamera

BATCH_PIXELS = 1 << 17
"""Pixels rendered at a time: enough to keep numpy busy, few enough to stay in the cache."""


class Footage(Protocol):
    """Anything that can be filmed."""

    height: int
    width: int

    def render(self, time: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Linear light in [0, 1] at each `time` (n,), in exposures from the start: (n, 3, H, W)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RigConfig:
    """The timing of both cameras, and the spike camera.

    The recording starts with a gap, then exposures and gaps take turns; the spike camera runs through all of it.

    Attributes:
        num_frames: RGB frames per sequence.
        exposure_frames: spike frames while the shutter is open.
        gap_frames: spike frames while it is closed.
        rate_hz: spike frames per second.
        sharp_at: where in its exposure each sharp frame is, from 0 to 1: drawn from this range, each in the middle of a
            spike frame; None is the middle of the exposure, between two spike frames if their number is even.
        scale: RGB pixels per spike pixel, along each side.
        camera: threshold, reset and noise of the spike camera.
    """

    num_frames: int = 8
    exposure_frames: int = 64
    gap_frames: int = 8
    rate_hz: Fraction = Fraction(4000)
    sharp_at: tuple[float, float] | None = None
    scale: int = 1
    camera: SpikeCamera = field(
        default_factory=lambda: SpikeCamera(shot_noise=0.05, dark_noise=0.01, gain_spread=0.02)
    )

    def __post_init__(self) -> None:
        for name in ("num_frames", "exposure_frames", "gap_frames", "scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz {self.rate_hz}: expected more than 0")
        if self.sharp_at is not None and not 0 <= self.sharp_at[0] <= self.sharp_at[1] <= 1:
            raise ValueError(
                f"sharp_at {list(self.sharp_at)}: expected a range from small to large, within 0 to 1"
            )

    @property
    def spike_frames(self) -> int:
        """Spike frames in a recording."""
        return self.gap_frames + self.num_frames * (self.exposure_frames + self.gap_frames)

    @property
    def spans(self) -> npt.NDArray[np.int64]:
        """The exposures as spike-frame spans [start, stop), (num_frames, 2)."""
        period = self.exposure_frames + self.gap_frames
        start = self.gap_frames + period * np.arange(self.num_frames, dtype=np.int64)
        return np.stack([start, start + self.exposure_frames], axis=1)

    def sharp_frames(self, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
        """The spike frame in whose middle each sharp frame is, (num_frames,); None where all are in the middle."""
        if self.sharp_at is None:
            return None
        first, last = (min(int(at * self.exposure_frames), self.exposure_frames - 1) for at in self.sharp_at)
        return self.spans[:, 0] + rng.integers(first, last, self.num_frames, endpoint=True)

    def spike_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the spike camera beside an RGB camera of `height` x `width`.

        Raises:
            ValueError: the scale does not divide the picture, or a spike frame does not fill whole bytes.
        """
        if min(height, width) < 1 or height % self.scale or width % self.scale:
            raise ValueError(f"a picture of {height}x{width} cannot be divided by scale {self.scale}")
        size = height // self.scale, width // self.scale
        if size[0] * size[1] % 8:
            raise ValueError(f"{size[0]}x{size[1]} spike pixels do not fill whole bytes; use multiples of 8")
        return size


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """What the rig recorded.

    Attributes:
        blurry, sharp: uint8 (N, 3, H, W).
        spikes: uint8 (T, h, w), zeros and ones.
        sharp_frames: int64 (N,) the spike frame in whose middle each sharp frame is; None: all are in the middle of
            their exposures.
    """

    blurry: npt.NDArray[np.uint8]
    sharp: npt.NDArray[np.uint8]
    spikes: npt.NDArray[np.uint8]
    sharp_frames: npt.NDArray[np.int64] | None = None


def film(footage: Footage, rig: RigConfig, rng: np.random.Generator) -> Film:
    """Film `footage` with both cameras.

    Every spike frame is rendered at its middle instant. A blurry frame is the mean of the renders of its exposure, a
    sharp frame the render at the exposure's middle, or where `rig.sharp_at` puts it; the spike camera sees the mean of
    R, G and B of the same renders, averaged over `scale` x `scale` pixels. All of it is linear light; RGB is rounded
    to 8 bit.
    """
    shape = (rig.num_frames, 3, footage.height, footage.width)
    total = np.zeros(shape, np.float64)
    sensor = Sensor(rig.camera, rig.spike_size(*shape[2:]), rng)
    spikes = []
    for first, light in _renders(footage, rig):
        spikes.append(sensor.integrate(area_mean(light.mean(axis=1), rig.scale)))
        for frame, (start, stop) in enumerate(rig.spans - first):
            total[frame] += light[max(start, 0) : max(stop, 0)].sum(axis=0)
    own = rng.spawn(1)[0]  # so that these instants and the spikes do not change each other
    sharp_frames = rig.sharp_frames(own)
    instants = rig.spans.mean(axis=1) if sharp_frames is None else sharp_frames + 0.5
    sharp = [to_8_bit(footage.render(instant[None])) for instant in instants / rig.exposure_frames]
    return Film(
        blurry=to_8_bit(total / rig.exposure_frames),
        sharp=np.concatenate(sharp),
        spikes=np.concatenate(spikes),
        sharp_frames=sharp_frames,
    )


def area_mean(images: npt.NDArray[np.floating], scale: int) -> npt.NDArray[np.floating]:
    """Average (..., H, W) over `scale` x `scale` blocks: (..., H / scale, W / scale)."""
    if scale == 1:
        return images
    *front, height, width = images.shape
    return images.reshape(*front, height // scale, scale, width // scale, scale).mean(axis=(-3, -1))


def to_8_bit(light: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Linear light in [0, 1] to 0..255, rounded."""
    return np.round(light * 255).clip(0, 255).astype(np.uint8)


def _renders(footage: Footage, rig: RigConfig) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Every spike frame in batches: (index of the batch's first frame, light (n, 3, H, W))."""
    batch = max(1, BATCH_PIXELS // (footage.height * footage.width))
    for first in range(0, rig.spike_frames, batch):
        frames = np.arange(first, min(first + batch, rig.spike_frames))
        yield first, footage.render((frames + 0.5) / rig.exposure_frames)
