"""What differs from pixel to pixel on one sensor for all its life: gain, dark current, pixels that are stuck.

Measured maps come from a file, in one of these forms:

- `.npz` with `gain` and/or `dark_current`, each (H, W); or `.npy` of (H, W), gain, or (2, H, W), gain and dark current.
  The charge of a frame is gain * light + dark_current, where white light is 1.
- `.npz` with `Nl`, `Nd` and `D_light`, each (H, W): the calibration of a real spike camera published with SpikeNeRF
  (Guo et al., CVPR 2024), in intervals between spikes. See `SensorMaps`.

A sensor of another size takes the middle of larger maps, and continues smaller ones by their mirror images: that
keeps what is measured about the centre of the lens in the centre, and makes no seams.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.arrays import map_npy, npz_keys, read_npz
from pipeline.errors import FormatError
from pipeline.files import sha256_of
from pipeline.inputs import require_file

Doubles = npt.NDArray[np.float64]

MAX_MAP_BYTES = 1 << 28
"""A map that unpacks to more than this (8192 x 4096 float64) is a mistake or an attack."""
INTERVAL_WHITE = 4.0
"""White light was a spike in every 4 frames where SpikeNeRF's maps were measured."""
INTERVAL_KEYS = ("Nl", "Nd", "D_light")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SensorMaps:
    """Measured differences between the pixels of a sensor.

    Attributes:
        gain, dark: per pixel, (H, W), finite and not negative.
        white: None for `gain * light + dark`. Otherwise the response is linear in the odds of firing: with the rate
            x = light / white of an ideal pixel and its odds o = x / (1 - x), one frame in each interval being lost to
            the reset, the pixel has the odds gain * o + dark. In SpikeNeRF's words, with D = 1 / o:
            D' = D / (Nl + D * Nd / (D_light * (335 + Nd))), rate 1 / (D' + 1).
    """

    gain: Doubles
    dark: Doubles
    white: float | None = None

    def charge(self, light: npt.NDArray[np.floating]) -> Doubles:
        """The charge that `light` (..., H, W), where white is 1, leaves in a frame.

        Raises:
            ValueError: light at which an ideal pixel of the measured camera would fire in every frame.
        """
        if self.white is None:
            return self.gain * light + self.dark
        if light.max(initial=0) >= self.white:
            raise ValueError(f"light {light.max():.3g}: the maps were measured below {self.white:g}")
        odds = self.gain * (light / (self.white - light)) + self.dark
        return self.white * odds / (1 + odds)

    def fitted(self, height: int, width: int) -> "SensorMaps":
        """The maps of a sensor of another size: their middle, or continued by their mirror images."""
        gain, dark = (_fit(values, (height, width)) for values in (self.gain, self.dark))
        return SensorMaps(gain=gain, dark=dark, white=self.white)


def read_sensor_maps(path: Path, sha256: str | None = None) -> SensorMaps:
    """Read measured maps, of the forms that this module describes.

    Args:
        sha256: of the file's bytes, where only this very file will do.

    Raises:
        FormatError: no such file, another digest, another form, or values that no sensor has.
    """
    path = Path(path)
    if sha256 is not None and (found := digest_of_maps(path)) != sha256:
        raise FormatError(
            f"{path}: its SHA-256 is {found[:12]}…, not the {sha256[:12]}… of the sensor maps of this simulation",
            "restore the file, or begin another simulation in another folder",
        )
    maps = _from_npz(path) if path.suffix.lower() == ".npz" else _from_npy(path)
    if maps.gain.shape != maps.dark.shape or maps.gain.ndim != 2 or not maps.gain.size:
        raise FormatError(f"{path}: maps of {maps.gain.shape} and {maps.dark.shape}, expected one (H, W)")
    for name, values in (("gain", maps.gain), ("dark current", maps.dark)):
        if not np.isfinite(values).all() or values.min() < 0:
            raise FormatError(f"{path}: the {name} of a pixel must be finite and not negative")
    return maps


def digest_of_maps(path: Path) -> str:
    """SHA-256 of a file of measured maps.

    Raises:
        FormatError: no such file.
    """
    require_file(path, "sensor maps")
    return sha256_of(path)


def draw_gains(height: int, width: int, spread: float, seed: int) -> Doubles:
    """Gains of deviation `spread` around 1 of the sensor number `seed`, (height, width), never negative."""
    if spread == 0:
        return np.ones((height, width))
    return np.maximum(1 + spread * np.random.default_rng(seed).standard_normal((height, width)), 0)


def draw_stuck(
    height: int, width: int, dead_share: float, hot_share: float, seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which pixels of the sensor number `seed` never fire and which fire in every frame, each (height, width).

    Their numbers are the shares of all pixels, rounded; a larger share adds pixels to those of a smaller one.
    """
    pixels = height * width
    order = np.random.default_rng([seed, 1]).permutation(pixels)
    dead, hot = np.zeros((2, pixels), np.bool_)
    dead[order[: round(dead_share * pixels)]] = True
    hot[order[pixels - round(hot_share * pixels) :]] = True
    return dead.reshape(height, width), hot.reshape(height, width) & ~dead.reshape(height, width)


def _from_npz(path: Path) -> SensorMaps:
    require_file(path, "sensor maps")
    keys = npz_keys(path)
    if set(INTERVAL_KEYS) <= set(keys):
        gain, dark, bright = (_numbers(path, read_npz(path, key, MAX_MAP_BYTES)) for key in INTERVAL_KEYS)
        if not gain.shape == dark.shape == bright.shape or bright.min(initial=1) <= 0:
            raise FormatError(f"{path}: Nl, Nd and D_light must have one shape, and D_light be above 0")
        return SensorMaps(gain=gain, dark=dark / (bright * (335 + dark)), white=INTERVAL_WHITE)
    given = [key for key in ("gain", "dark_current") if key in keys]
    if not given:
        raise FormatError(
            f"{path}: no sensor maps: it holds {', '.join(keys)}",
            f"name the arrays gain and dark_current, or {', '.join(INTERVAL_KEYS)}",
        )
    found = {key: _numbers(path, read_npz(path, key, MAX_MAP_BYTES)) for key in given}
    shape = found[given[0]].shape
    return SensorMaps(gain=found.get("gain", np.ones(shape)), dark=found.get("dark_current", np.zeros(shape)))


def _from_npy(path: Path) -> SensorMaps:
    require_file(path, "sensor maps")
    mapped = map_npy(path)
    if mapped.nbytes > MAX_MAP_BYTES or not (mapped.ndim == 2 or (mapped.ndim == 3 and len(mapped) == 2)):
        raise FormatError(
            f"{path}: shape {mapped.shape}, expected (H, W), the gain, or (2, H, W), gain and dark current"
        )
    values = _numbers(path, mapped)
    gain, dark = values if values.ndim == 3 else (values, np.zeros(values.shape))
    return SensorMaps(gain=gain, dark=dark)


def _numbers(path: Path, array: npt.NDArray[np.generic]) -> Doubles:
    if array.dtype.kind not in "fiu":
        raise FormatError(f"{path}: values of type {array.dtype}, expected numbers")
    return array.astype(np.float64)


def _fit(values: Doubles, shape: tuple[int, int]) -> Doubles:
    for axis, (have, want) in enumerate(zip(values.shape, shape, strict=True)):
        missing = max(0, want - have)
        widths = [(0, 0), (0, 0)]
        widths[axis] = (missing // 2, missing - missing // 2)
        first = max(0, have - want) // 2
        values = np.pad(values, widths, mode="symmetric").take(range(first, first + want), axis)
    return values
