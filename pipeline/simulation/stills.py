"""A still picture filmed by a moving camera: exact sub-frame motion from any sharp image.

The camera drifts, turns and zooms along smooth oscillations that stay inside the picture; every instant is sampled
from the picture itself, so there is nothing to interpolate in time.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.simulation.textures import soften
from pipeline.simulation.views import View, look

MAX_ANGLE = 0.04
"""Largest rotation either way, in radians."""
MAX_ZOOM = 0.05
"""Largest zoom in, as a share of the view."""
BORDER = 2
"""Pixels along the edges that are never looked at: the blur before sampling mixes opposite edges there."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPath:
    """Oscillations of x, y (pixels of the view), angle (radians) and zoom around their middles, in exposures.

    Each is amplitude * sin(frequency * time + phase), with arrays (4,) in the order x, y, angle, zoom.
    """

    amplitude: Doubles
    frequency: Doubles
    phase: Doubles

    def at(self, time: Doubles) -> Doubles:
        """Offsets from the middle at `time` (n,): (4, n)."""
        return self.amplitude[:, None] * np.sin(self.frequency[:, None] * time + self.phase[:, None])


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatedStill:
    """Footage of `picture` (3, H, W) float32 in [0, 1], `reduce` texels to a pixel of the view."""

    picture: npt.NDArray[np.float32]
    reduce: int
    height: int
    width: int
    path: CameraPath

    def render(self, time: Doubles) -> npt.NDArray[np.float32]:
        """The view at each `time` (n,), in exposures: (n, 3, height, width) in [0, 1]."""
        x, y, angle, zoom = self.path.at(np.asarray(time, np.float64))
        rows, columns = self.picture.shape[1:]
        step = self.reduce * (1 - MAX_ZOOM / 2 + zoom)
        view = View((columns - 1) / 2 + self.reduce * x, (rows - 1) / 2 + self.reduce * y, angle, step)
        return look(self.picture, view, (self.height, self.width)).swapaxes(0, 1)


def animate(
    image: npt.NDArray[np.uint8],
    *,
    shape: tuple[int, int],
    reduce: int,
    speed: tuple[float, float],
    rng: np.random.Generator,
    name: str,
) -> AnimatedStill:
    """Draw a camera path over `image` (3, H, W).

    Args:
        shape: height and width of the view.
        reduce: pixels of the image to a pixel of the view, along each side.
        speed: slowest and fastest root-mean-square speed, in pixels of the view per exposure.
        name: what to call the image in an error.

    Raises:
        UsageError: the image is too small for such a view and speed.
    """
    room_x, room_y = free_room(image.shape[1:], shape, reduce)
    if min(room_x, room_y) < speed[1]:
        raise UsageError(
            f"{name}: {image.shape[1]}x{image.shape[2]} pixels leave a view of {shape[0]}x{shape[1]} (reduced"
            f" {reduce} times) only {min(room_x, room_y):.0f} pixels to move, and speed asks for {speed[1]:g}",
            "use larger images, or a smaller height and width, reduce or speed",
        )
    pace, heading = rng.uniform(*speed), rng.uniform(0, 2 * np.pi)
    amplitude = np.array([
        min(room_x, rng.uniform(1, 4) * speed[1]), min(room_y, rng.uniform(1, 4) * speed[1]), MAX_ANGLE, MAX_ZOOM / 2
    ])  # fmt: skip
    velocity = pace * np.array([np.cos(heading), np.sin(heading)])
    frequency = np.concatenate(
        [np.sqrt(2) * velocity / np.maximum(amplitude[:2], 1), rng.uniform(0.1, 0.5, 2)]
    )
    path = CameraPath(amplitude=amplitude, frequency=frequency, phase=rng.uniform(0, 2 * np.pi, 4))
    soft = np.stack([soften(plane[None] / 255, 0.45 * reduce)[0] for plane in image])
    return AnimatedStill(
        picture=soft.clip(0, 1).astype(np.float32), reduce=reduce, height=shape[0], width=shape[1], path=path
    )


def free_room(image: tuple[int, int], view: tuple[int, int], reduce: int) -> tuple[float, float]:
    """Pixels a view may move from the middle of an image along x and y, turned as far as it may be."""
    cos, sin = np.cos(MAX_ANGLE), np.sin(MAX_ANGLE)
    across, down = view[1] * cos + view[0] * sin, view[0] * cos + view[1] * sin
    return (image[1] / reduce - across) / 2 - BORDER, (image[0] / reduce - down) / 2 - BORDER
