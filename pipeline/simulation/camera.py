"""The integrate-and-fire spike camera: light in, spikes out.

Every pixel adds up the light that falls on it and fires when the sum reaches the threshold (Huang et al.,
"1000x faster camera and machine vision with ordinary devices", Engineering 2023). For steady light I per spike frame
the mean rate, in spikes per frame, is

    min(I / threshold, 1)          with the subtractive reset: the count of T frames is floor((A0 + T I) / threshold)
    1 / ceil(threshold / I)        with the reset to zero, in the steady state
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.simulation.fixed_pattern import digest_of_maps, draw_gains, draw_stuck, read_sensor_maps


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeCamera:
    """A spike camera's sensor. Light is linear, 1.0 is white; noise is per pixel and spike frame, in units of light.

    Attributes:
        threshold: the integral at which a pixel fires; 2.0 is what the public data sets were made with. A frame holds
            one spike of a pixel at most: charge above the threshold in one frame saturates the pixel, which then
            fires in every frame. Below 1 that happens to white light.
        reset: "subtract" takes the threshold off the integral and keeps the rest; "zero" loses the rest, which makes
            bright pixels too slow (rate 1 / ceil(threshold / light)).
        shot_noise: standard deviation at white; it grows with the square root of the light.
        dark_noise: standard deviation in the dark, added everywhere.
        dark_current: light that is not there, added everywhere; raises every rate by dark_current / threshold.
        gain_spread: standard deviation of the pixels' gains around 1, fixed for the life of the sensor.
        dead_share: of the pixels, which never fire.
        hot_share: of the pixels, which fire in every frame.
        pattern_seed: which sensor of the series this is: draws the fixed gains and the dead and hot pixels, whatever
            scene is filmed.
        maps: `.npz` or `.npy` file of a real sensor's measured gains and dark currents; `fixed_pattern` says in which
            form. They act before `gain_spread` and `dark_current`.
        maps_sha256: of that file, without which no other will do; a simulation looks it up and records it.
    """

    threshold: float = 2.0
    reset: Literal["subtract", "zero"] = "subtract"
    shot_noise: float = 0.0
    dark_noise: float = 0.0
    dark_current: float = 0.0
    gain_spread: float = 0.0
    dead_share: float = 0.0
    hot_share: float = 0.0
    pattern_seed: int = 0
    maps: Path | None = None
    maps_sha256: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold < np.inf:
            raise ValueError(f"threshold {self.threshold}: expected more than 0")
        if self.reset not in ("subtract", "zero"):
            raise ValueError(f"reset {self.reset!r}: expected 'subtract' or 'zero'")
        for name in ("shot_noise", "dark_noise", "dark_current", "gain_spread", "dead_share", "hot_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 0 and below 1")
        if self.dead_share + self.hot_share > 1:
            raise ValueError(f"dead_share {self.dead_share} and hot_share {self.hot_share} are more than all")
        if self.pattern_seed < 0:
            raise ValueError(f"pattern_seed {self.pattern_seed}: expected 0 or more")
        if self.maps_sha256 is not None and self.maps is None:
            raise ValueError("maps_sha256 goes with maps, the file that it is the digest of")

    def identified(self) -> "SpikeCamera":
        """The same camera with the digest of its measured maps, so that its fields say all that it does.

        Raises:
            FormatError: there is no such file.
            ConfigError: the file has another digest than `maps_sha256`.
        """
        if self.maps is None:
            return self
        found = digest_of_maps(self.maps)
        if self.maps_sha256 not in (None, found):
            raise ConfigError(f"{self.maps}: its SHA-256 is {found}, not {self.maps_sha256}")
        return replace(self, maps_sha256=found)

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
        self._gain = draw_gains(*shape, camera.gain_spread, camera.pattern_seed)
        self._dead, self._hot = draw_stuck(*shape, camera.dead_share, camera.hot_share, camera.pattern_seed)
        maps = camera.maps and read_sensor_maps(camera.maps, camera.maps_sha256)
        self._maps = maps.fitted(*shape) if maps else None
        # As many draws whatever the threshold: cameras that differ in nothing else see the same noise.
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
        charge = self._gain * (self._maps.charge(light) if self._maps else light) + self.camera.dark_current
        self._add_noise(charge, light)
        spikes = np.empty(light.shape, np.uint8)
        for frame, increment in zip(spikes, charge, strict=True):
            self._integral += increment
            np.greater_equal(self._integral, self.camera.threshold, out=frame, casting="unsafe")
            if self.camera.reset == "subtract":
                self._integral -= frame * self.camera.threshold
                self._lose_further_spikes()
            else:
                self._integral[frame == 1] = 0
        spikes[:, self._dead] = 0
        spikes[:, self._hot] = 1
        return spikes

    def _lose_further_spikes(self) -> None:
        """Take off what is left of more than one spike's charge in a frame.

        The pixel resets itself whenever it reaches the threshold, and the frame keeps one bit of it. Without this,
        the charge of a pixel that saturates would pile up, and it would go on firing long after the light is gone.
        """
        above = self._integral >= self.camera.threshold
        if above.any():
            self._integral[above] %= self.camera.threshold

    def _add_noise(self, charge: npt.NDArray[np.float64], light: npt.NDArray[np.floating]) -> None:
        """Add shot and dark noise in place, as one normal draw: variances add. It may be negative: no rate bias."""
        variance = self.camera.shot_noise**2 * light + self.camera.dark_noise**2
        if self.camera.shot_noise or self.camera.dark_noise:
            charge += np.sqrt(variance) * self._rng.standard_normal(light.shape, dtype=np.float32)
