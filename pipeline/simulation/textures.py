"""Random textures, soft enough to be looked at from any fraction of a pixel.

A texture is float32 (planes, S, S), periodic in both directions, S a power of two, with `TEXELS_PER_PIXEL` texels for
every pixel of the picture: blurred to the picture's bandwidth, it can be sampled bilinearly at any position without
the sharpness changing on the way (`pipeline.simulation.views`).
"""

import numpy as np
import numpy.typing as npt

TEXELS_PER_PIXEL = 2
SOFTNESS = 0.9
"""Standard deviation, in texels, of the blur that keeps edges within the picture's bandwidth."""

Floats = npt.NDArray[np.float32]


def random_texture(rng: np.random.Generator, size: int, shapes: int) -> Floats:
    """Colour clouds under `shapes` discs, polygons, bars and checkers: (3, size, size) in [0, 1]."""
    low, high = _random_colour(rng), _random_colour(rng)
    clouds = _clouds(rng, size)
    texture = low[:, None, None] * (1 - clouds) + high[:, None, None] * clouds
    texture += 0.25 * (_clouds(rng, size, slope=1.0) - 0.5)
    for _ in range(shapes):
        radius = float(np.exp(rng.uniform(np.log(4), np.log(40))))
        _draw(rng, texture, radius)
    return np.clip(soften(texture), 0.02, 1).astype(np.float32)


def random_sprite(rng: np.random.Generator, size: int, radius: float) -> Floats:
    """One textured shape on a transparent ground: premultiplied RGB and alpha, (4, size, size).

    Args:
        radius: of the circle around the shape, in texels; 8 texels of the margin to the edge must stay free.
    """
    if radius + 8 > size / 2:
        raise ValueError(f"a shape of radius {radius} does not fit a texture of {size} texels")
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = _shape(rng, x, y, radius)
    colours = random_texture(rng, size, shapes=12)
    return soften(np.concatenate([colours * alpha, alpha[None]])).clip(0, 1).astype(np.float32)


def soften(planes: npt.NDArray[np.floating], sigma: float = SOFTNESS) -> npt.NDArray[np.float64]:
    """Blur (planes, H, W) with a Gaussian of `sigma` texels, as if they were periodic."""
    fy, fx = np.fft.fftfreq(planes.shape[-2])[:, None], np.fft.rfftfreq(planes.shape[-1])
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2))
    return np.fft.irfft2(np.fft.rfft2(planes) * kernel, s=planes.shape[-2:])


def _random_colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Brightness varies more than hue, as it does in nature: a grey sensor must be able to see most edges."""
    tint = rng.normal(0, 0.15, 3)
    return np.clip(rng.uniform(0.08, 0.92) + tint - tint.mean(), 0.02, 0.98)


def _clouds(rng: np.random.Generator, size: int, slope: float = 1.6) -> npt.NDArray[np.float64]:
    """Noise whose amplitude falls with frequency to the power `slope`, spread over [0, 1]: (size, size)."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    frequency = np.hypot(fx, fy)
    amplitude = np.where(frequency > 3 / size, np.maximum(frequency, 1 / size) ** -slope, 0)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * amplitude, s=(size, size))
    return np.clip(0.5 + noise / (4 * noise.std()), 0, 1)


def _draw(rng: np.random.Generator, texture: npt.NDArray[np.float64], radius: float) -> None:
    """Paint one random shape, flat or patterned in two colours, somewhere on a periodic texture, in place."""
    size, reach = texture.shape[-1], int(radius) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    rows, columns = (rng.integers(size, size=(2, 1)) + np.arange(-reach, reach + 1)) % size
    mask = _shape(rng, x, y, radius)
    pattern = _pattern(rng, x, y)
    colours = (_random_colour(rng)[:, None, None], _random_colour(rng)[:, None, None])
    paint = colours[0] * pattern + colours[1] * (1 - pattern)
    where = (slice(None), rows[:, None], columns[None])
    texture[where] += mask * (paint - texture[where])


def _shape(
    rng: np.random.Generator, x: npt.NDArray, y: npt.NDArray, radius: float
) -> npt.NDArray[np.float64]:
    """1 inside a random disc, ring or polygon within `radius` of the origin, 0 outside."""
    kind = rng.integers(4)
    if kind == 0:
        return (np.hypot(x, y) <= radius).astype(np.float64)
    if kind == 1:
        distance = np.hypot(x, y)
        return ((distance <= radius) & (distance >= radius * rng.uniform(0.3, 0.7))).astype(np.float64)
    corners = int(rng.integers(3, 7))
    angles = (
        rng.uniform(0, 2 * np.pi)
        + 2 * np.pi * (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) / corners
    )
    inner = radius * np.cos(np.pi / corners) * rng.uniform(0.6, 1.0, corners)
    inside = np.hypot(x, y) <= radius
    for angle, distance in zip(angles, inner, strict=True):
        inside &= x * np.cos(angle) + y * np.sin(angle) <= distance
    return inside.astype(np.float64)


def _pattern(rng: np.random.Generator, x: npt.NDArray, y: npt.NDArray) -> npt.NDArray[np.float64]:
    """A share in [0, 1] at every position: flat, bars or checkers of 3 to 8 texels."""
    kind, angle, width = rng.integers(4), rng.uniform(0, np.pi), rng.uniform(3, 8)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        return np.ones_like(x)
    bars = np.floor(along / width) % 2
    if kind == 1:
        return bars
    if kind == 2:
        return bars * (np.floor(across / (2.5 * width)) % 3 > 0)  # like lines of print
    return (bars + np.floor(across / width)) % 2
