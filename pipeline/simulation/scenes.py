"""Generated scenes: textured objects that move over a textured, moving background.

A scene is a function of continuous time. Every spike frame is rendered at its own instant, so blur made of renders is
smooth: there are no frames to interpolate and no ghosts. Light is linear, in [0, 1].
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.simulation.rig import RigConfig
from pipeline.simulation.textures import TEXELS_PER_PIXEL, random_sprite, random_texture
from pipeline.simulation.views import View, look

MAX_OBJECT_RADIUS = 100.0
"""In pixels; a larger object is a texture of more than 512 texels a side."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneConfig:
    """Generated data: how many sequences, what is in them, and the two cameras that film them.

    Attributes:
        height, width: of the RGB frames, in pixels.
        train, val, test: sequences per split; no texture and no motion is shared between sequences.
        objects: fewest and most objects over the background.
        object_radius: smallest and largest, in pixels.
        object_speed, background_speed: slowest and fastest, in pixels per exposure.
        object_spin, background_spin: fastest rotation either way, in radians per exposure.
        rig: timing, spike resolution and spike camera.
    """

    height: int = 96
    width: int = 96
    train: int = 24
    val: int = 3
    test: int = 4
    objects: tuple[int, int] = (2, 4)
    object_radius: tuple[float, float] = (9.0, 22.0)
    object_speed: tuple[float, float] = (8.0, 20.0)
    background_speed: tuple[float, float] = (6.0, 14.0)
    object_spin: float = 0.5
    background_spin: float = 0.06
    rig: RigConfig = field(default_factory=RigConfig)

    def __post_init__(self) -> None:
        self.rig.spike_size(self.height, self.width)
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test == 0:
            raise ValueError(
                f"{self.train} train, {self.val} val, {self.test} test sequences: nothing to generate"
            )
        for name in ("objects", "object_radius", "object_speed", "background_speed"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < np.inf:
                raise ValueError(
                    f"{name} [{low}, {high}]: expected a range from small to large, not negative"
                )
        if self.object_radius[1] > MAX_OBJECT_RADIUS:
            raise ValueError(f"object_radius {self.object_radius[1]}: at most {MAX_OBJECT_RADIUS} pixels")
        if min(self.object_spin, self.background_spin) < 0:
            raise ValueError("object_spin and background_spin are the fastest either way: not negative")

    @property
    def splits(self) -> dict[str, int]:
        """Sequences per split."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A point on a circular arc, spinning: positions in pixels, time in exposures, angles in radians."""

    x: float
    y: float
    speed: float
    heading: float
    turn: float
    angle: float
    spin: float

    def at(self, time: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """x, y and angle at `time`: the integral of a velocity of constant size that turns steadily."""
        heading = self.heading + self.turn * time
        x = self.x + self.speed / self.turn * (np.sin(heading) - np.sin(self.heading))
        y = self.y - self.speed / self.turn * (np.cos(heading) - np.cos(self.heading))
        return x, y, self.angle + self.spin * time


@dataclass(frozen=True, slots=True)
class Sprite:
    """A moving object: premultiplied RGBA (4, S, S), the radius it fills in pixels, its path."""

    texture: Floats
    radius: float
    motion: Motion


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What there is to film, at any instant: a background (3, S, S) and objects, the first ones behind."""

    height: int
    width: int
    background: Floats
    background_motion: Motion
    sprites: tuple[Sprite, ...]

    def render(self, time: Doubles) -> Floats:
        """The scene at each `time` (n,), in exposures from its start: (n, 3, H, W) in [0, 1]."""
        time = np.asarray(time, np.float64)
        x, y, angle = self.background_motion.at(time)
        step = np.full(len(time), float(TEXELS_PER_PIXEL))
        view = View(step * x, step * y, angle, step)
        picture = look(self.background, view, (self.height, self.width))
        for sprite in self.sprites:
            self._draw(picture, sprite, time)
        return picture.swapaxes(0, 1)

    def _draw(self, picture: Floats, sprite: Sprite, time: Doubles) -> None:
        """Composite a sprite over `picture` (3, n, H, W), in place; one that leaves comes in at the other side."""
        reach = int(np.ceil(sprite.radius)) + 3
        x, y, angle = sprite.motion.at(time)
        x, y = _come_round(x, self.width, reach), _come_round(y, self.height, reach)
        left, top = np.floor(x).astype(int) - reach, np.floor(y).astype(int) - reach
        side = 2 * reach + 2
        middle = np.full(len(time), (sprite.texture.shape[-1] - 1) / 2)
        view = View(middle, middle, -angle, np.full(len(time), float(TEXELS_PER_PIXEL)))
        stamps = look(sprite.texture, view, (side, side), pivot=(x - left, y - top))
        for n in range(len(time)):
            rows, columns = _overlap(top[n], side, self.height), _overlap(left[n], side, self.width)
            stamp = stamps[:, n, slice(*(rows - top[n])), slice(*(columns - left[n]))]
            ground = picture[:, n, slice(*rows), slice(*columns)]
            ground *= 1 - stamp[3]
            ground += stamp[:3]


def random_scene(config: SceneConfig, rng: np.random.Generator) -> Scene:
    """Draw a scene: textures, shapes, sizes, speeds and paths."""
    sprites = []
    for _ in range(rng.integers(config.objects[0], config.objects[1] + 1)):
        radius = rng.uniform(*config.object_radius)
        texture = random_sprite(rng, _sprite_size(radius), radius * TEXELS_PER_PIXEL)
        sprites.append(
            Sprite(texture, radius, _random_motion(rng, config, config.object_speed, config.object_spin))
        )
    size = _power_of_two(2.5 * TEXELS_PER_PIXEL * max(config.height, config.width))
    return Scene(
        height=config.height,
        width=config.width,
        background=random_texture(rng, size, shapes=size * size // 1750),
        background_motion=_random_motion(rng, config, config.background_speed, config.background_spin),
        sprites=tuple(sprites),
    )


def _random_motion(
    rng: np.random.Generator, config: SceneConfig, speeds: tuple[float, float], spin: float
) -> Motion:
    return Motion(
        x=rng.uniform(0, config.width),
        y=rng.uniform(0, config.height),
        speed=rng.uniform(*speeds),
        heading=rng.uniform(0, 2 * np.pi),
        turn=rng.uniform(0.05, 0.4) * rng.choice([-1, 1]),
        angle=rng.uniform(0, 2 * np.pi),
        spin=rng.uniform(-spin, spin),
    )


def _power_of_two(least: float) -> int:
    return 1 << int(np.ceil(np.log2(least)))


def _sprite_size(radius: float) -> int:
    """Texels a side so that the square around the object, however it is turned, reaches none of its periodic copies.

    The corner of a square of half side r + 4 pixels is sqrt(2) of that from the middle, the copy's rim S / 2 - r.
    """
    return _power_of_two(TEXELS_PER_PIXEL * ((1 + np.sqrt(2)) * radius + 9))


def _come_round(position: Doubles, size: int, reach: int) -> Doubles:
    """Positions on a torus that is larger than the picture by what lies out of sight."""
    return (position + reach + 1) % (size + 2 * reach + 2) - reach - 1


def _overlap(start: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """[start, start + length) cut to [0, size)."""
    return np.clip([start, start + length], 0, size)
