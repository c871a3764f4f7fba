"""The integrate-and-fire spike camera: light in, spikes out.

Every pixel adds up the light that falls on it and fires when the sum reaches the threshold (Huang et al.,
"1000x faster camera and machine vision with ordinary devices", Engineering 2023). For steady light I in [0, 1] per
spike frame and the subtractive reset, the mean rate is I / threshold spikes per frame.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeCamera:
    """A spike camera's sensor. Light is linear, 1.0 is white; noise is per pixel and spike frame, in units of light.

    Attributes:
        threshold: the integral at which a pixel fires; 2.0 is what the public data sets were made with. A pixel
            fires at most once per frame, so white must not exceed it: at least 1.
        reset: "subtract" takes the threshold off the integral and keeps the rest; "zero" loses the rest, which makes
            bright pixels too slow (rate 1 / ceil(threshold / light)).
        shot_noise: standard deviation at white; it grows with the square root of the light.
        dark_noise: standard deviation in the dark, added everywhere.
        dark_current: light that is not there, added everywhere; raises every rate by dark_current / threshold.
        gain_spread: standard deviation of the pixels' gains around 1, fixed for the life of the sensor.
        pattern_seed: which sensor of the series this is: draws the fixed gains, whatever scene is filmed.
    """

    threshold: float = 2.0
    reset: Literal["subtract", "zero"] = "subtract"
    shot_noise: float = 0.0
    dark_noise: float = 0.0
    dark_current: float = 0.0
    gain_spread: float = 0.0
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.threshold < np.inf:
            raise ValueError(
                f"threshold {self.threshold}: a pixel fires once per frame, so it must be at least 1"
            )
        if self.reset not in ("subtract", "zero"):
            raise ValueError(f"reset {self.reset!r}: expected 'subtract' or 'zero'")
        for name in ("shot_noise", "dark_noise", "dark_current", "gain_spread"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 0 and below 1 (white)")
        if self.pattern_seed < 0:
            raise ValueError(f"pattern_seed {self.pattern_seed}: expected 0 or more")

    def gains(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """The fixed-pattern gain of every pixel, (height, width), never negative."""
        if self.gain_spread == 0:
            return np.ones((height, width))
        pattern = np.random.default_rng(self.pattern_seed).standard_normal((height, width))
        return np.maximum(1 + self.gain_spread * pattern, 0)

    def expose(
        self, light: Iterable[npt.NDArray[np.floating]], rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        """Film `light`, one (H, W) image per spike frame, and return the spikes as (T, H, W) zeros and ones."""
        sensor: Sensor | None = None
        spikes = []
        for image in light:
            sensor = sensor or Sensor(self, image.shape, rng)
            spikes.append(sensor.integrate(image[None]))
        if not spikes:
            raise ValueError("no light: nothing to expose")
        return np.concatenate(spikes)


class Sensor:
    """A camera that is filming: the integrals of its pixels, from one batch of frames to the next."""

    def __init__(self, camera: SpikeCamera, shape: tuple[int, int], rng: np.random.Generator) -> None:
        """Start filming with integrals drawn uniformly from [0, threshold): pixels do not fire in step."""
        self.camera = camera
        self._rng = rng
        self._gain = camera.gains(*shape)
        self._integral = rng.uniform(0, camera.threshold, shape)

    def integrate(self, light: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Film `light` (n, H, W), the frames that follow the last ones, and return their spikes, (n, H, W).

        Raises:
            ValueError: the light is negative or not finite, or has another size than the sensor.
        """
        if light.ndim != 3 or light.shape[1:] != self._integral.shape:
            raise ValueError(f"light {light.shape} does not fit a sensor of {self._integral.shape}")
        if not (np.isfinite(light).all() and light.min(initial=0) >= 0):
            raise ValueError("light must be finite and not negative")
        charge = self._gain * light + self.camera.dark_current
        self._add_noise(charge, light)
        spikes = np.empty(light.shape, np.uint8)
        for frame, increment in zip(spikes, charge, strict=True):
            self._integral += increment
            np.greater_equal(self._integral, self.camera.threshold, out=frame, casting="unsafe")
            if self.camera.reset == "subtract":
                self._integral -= frame * self.camera.threshold
            else:
                self._integral[frame == 1] = 0
        return spikes

    def _add_noise(self, charge: npt.NDArray[np.float64], light: npt.NDArray[np.floating]) -> None:
        """Add shot and dark noise in place, as one normal draw: variances add. It may be negative: no rate bias."""
        variance = self.camera.shot_noise**2 * light + self.camera.dark_noise**2
        if self.camera.shot_noise or self.camera.dark_noise:
            charge += np.sqrt(variance) * self._rng.standard_normal(light.shape, dtype=np.float32)
