"""Sequences to be filmed from a user's own images and video, and the splits they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.simulation.frame_sources import FrameSource
from pipeline.simulation.recorded import RecordedFootage, refuse_fast_motion
from pipeline.simulation.rig import Footage, RigConfig, area_mean, to_8_bit
from pipeline.simulation.simulated import SPLITS
from pipeline.simulation.stills import animate

MIN_FRAMES_PER_EXPOSURE = 4
"""Recorded frames in an exposure below which the motion path within it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """Data made from a user's own sharp images or video. Their values are taken as linear light.

    Attributes:
        motion: "animate" films single frames with a moving camera, exact for any source; "recorded" uses the motion
            in high-speed recordings, whose frames must follow each other within `max_step` pixels.
        height, width: of the RGB frames; as much of the source's middle as there is, unless given.
        reduce: source pixels per RGB pixel, along each side; 2 or more hides the source's own softness and noise.
        speed: slowest and fastest speed of an animated camera, in pixels per exposure (root mean square).
        every: animate every n-th frame of each source.
        fps: of a recording when it was filmed, not of its playback; a video's own rate unless given.
        max_step: pixels that a recording may move between frames.
        val_share, test_share: of the sequences; at least one each. With three or more sources, no two splits share
            a source; otherwise the splits are consecutive pieces, test last.
        split: puts everything in this one split instead.
        rig: timing, spike resolution and spike camera.
    """

    motion: Literal["animate", "recorded"] = "animate"
    height: int | None = None
    width: int | None = None
    reduce: int = 2
    speed: tuple[float, float] = (8.0, 20.0)
    every: int = 1
    fps: Fraction | None = None
    max_step: float = 1.0
    val_share: float = 0.1
    test_share: float = 0.1
    split: Literal["train", "val", "test"] | None = None
    rig: RigConfig = field(default_factory=RigConfig)

    def __post_init__(self) -> None:
        if self.reduce < 1 or self.every < 1:
            raise ValueError(f"reduce {self.reduce} and every {self.every} must be 1 or more")
        if not 0 < self.speed[0] <= self.speed[1] < np.inf:
            raise ValueError(f"speed {list(self.speed)}: expected a range from small to large, above 0")
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"fps {self.fps}: expected more than 0")
        if not 0 < self.max_step <= 2:
            raise ValueError(f"max_step {self.max_step}: beyond 2 pixels linear interpolation makes ghosts")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on"
            )
        if self.height is not None and self.width is not None:
            self.rig.spike_size(self.height, self.width)


@dataclass(frozen=True, slots=True)
class StillTake:
    """One frame of a source, animated."""

    split: str
    sequence: str
    config: VideoConfig
    source: FrameSource
    frame: int

    def footage(self, rng: np.random.Generator) -> Footage:
        """Read the frame and draw a camera path over it."""
        (image,) = self.source.read(self.frame, self.frame + 1)
        config = self.config
        margin = 2 * ceil(config.speed[1]) + 8  # also for the corners of a turned view
        shape = _view(image.shape[1:], config, margin, self.name)
        return animate(image, shape=shape, reduce=config.reduce, speed=config.speed, rng=rng, name=self.name)

    @property
    def name(self) -> str:
        """The frame, for errors."""
        return f"{self.source.path} frame {self.frame}"


@dataclass(frozen=True, slots=True)
class RecordedTake:
    """Frames [start, stop) of a high-speed recording at `fps`."""

    split: str
    sequence: str
    config: VideoConfig
    source: FrameSource
    start: int
    stop: int
    fps: Fraction

    def footage(self, rng: np.random.Generator) -> Footage:
        """Read the frames, shrink and crop them, and check that nothing moves too fast."""
        sizes, prepared = set(), []
        for image in self.source.read(self.start, self.stop):
            sizes.add(image.shape[1:])
            prepared.append(self._prepare(image))
        if len(sizes) > 1:
            raise UsageError(
                f"{self.source.path}: frames of different sizes {sorted(sizes)} are no recording"
            )
        frames = np.stack(prepared)
        refuse_fast_motion(frames, self.config.max_step, name=str(self.source.path), first=self.start)
        return RecordedFootage(frames, float(_frames_per_exposure(self.config, self.fps)))

    def _prepare(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        reduce = self.config.reduce
        height, width = _view(image.shape[1:], self.config, 0, str(self.source.path))
        top, left = (
            (side - reduce * view) // 2 for side, view in zip(image.shape[1:], (height, width), strict=True)
        )
        crop = image[:, top : top + reduce * height, left : left + reduce * width]
        return to_8_bit(area_mean(crop / 255, reduce))


def video_takes(sources: Sequence[FrameSource], config: VideoConfig) -> list[StillTake | RecordedTake]:
    """The sequences that can be made from `sources`.

    Raises:
        UsageError: too few for three splits, no frame rate, or recordings too slow or too short.
    """
    spans = _single_frames if config.motion == "animate" else _pieces
    places = [(n, span) for n, source in enumerate(sources) for span in spans(source, config)]
    splits = _assign([number for number, _ in places], config)
    return [
        _take(sources[number], f"{number:03d}", span, split, config)
        for (number, span), split in zip(places, splits, strict=True)
    ]


def _take(
    source: FrameSource, number: str, span: tuple[int, int], split: str, config: VideoConfig
) -> StillTake | RecordedTake:
    name = f"{number}_{_plain(source.path.stem)}_{span[0]:06d}"
    if config.motion == "animate":
        return StillTake(split, name, config, source, span[0])
    return RecordedTake(split, name, config, source, *span, _rate(source, config))


def _assign(owners: Sequence[int], config: VideoConfig) -> list[str]:
    """The split of each sequence, given the number of its source: whole sources, or consecutive sequences."""
    if config.split is not None:
        return [config.split] * len(owners)
    sources = sorted(set(owners))
    if len(sources) >= len(SPLITS):
        by_source = dict(zip(sources, _share_out(len(sources), config), strict=True))
        return [by_source[owner] for owner in owners]
    return _share_out(len(owners), config)


def _share_out(count: int, config: VideoConfig) -> list[str]:
    if count < len(SPLITS):
        raise UsageError(
            f"{count} sequences cannot fill train, val and test without sharing one",
            "give more frames, or put all of them in one split, for example split=test",
        )
    val, test = max(1, round(count * config.val_share)), max(1, round(count * config.test_share))
    val, test = min(val, count - 2), min(test, count - 1 - min(val, count - 2))
    return ["train"] * (count - val - test) + ["val"] * val + ["test"] * test


def _single_frames(source: FrameSource, config: VideoConfig) -> list[tuple[int, int]]:
    return [(frame, frame + 1) for frame in range(0, len(source), config.every)]


def _pieces(source: FrameSource, config: VideoConfig) -> list[tuple[int, int]]:
    """The frames [start, stop) of each sequence a recording holds; frames left over at its end are not used."""
    rig, fps = config.rig, _rate(source, config)
    per_exposure = _frames_per_exposure(config, fps)
    if per_exposure < MIN_FRAMES_PER_EXPOSURE:
        raise UsageError(
            f"{source.path}: {float(per_exposure):.2f} frames at {float(fps):g} fps to an exposure of"
            f" {rig.exposure_frames}/{float(rig.rate_hz):g} s, at least {MIN_FRAMES_PER_EXPOSURE} are needed",
            f"film faster, give the rate it was filmed at with fps, expose longer (rig.exposure_frames="
            f"{ceil(MIN_FRAMES_PER_EXPOSURE * rig.rate_hz / fps)} or more), or animate single frames (motion=animate)",
        )
    needed = ceil(rig.spike_frames * fps / rig.rate_hz) + 1
    starts = range(0, len(source) - needed + 1, needed)
    if not starts:
        raise UsageError(
            f"{source.path}: {len(source)} frames, a sequence of {rig.num_frames} exposures takes {needed}",
            "give longer recordings, or fewer frames per sequence with rig.num_frames",
        )
    return [(start, start + needed) for start in starts]


def _rate(source: FrameSource, config: VideoConfig) -> Fraction:
    rate = config.fps or source.rate_hz
    if rate is None:
        raise UsageError(f"{source.path}: does not say its frame rate", "give it, for example fps=960")
    return rate


def _frames_per_exposure(config: VideoConfig, fps: Fraction) -> Fraction:
    return config.rig.exposure_frames * fps / config.rig.rate_hz


def _view(image: tuple[int, ...], config: VideoConfig, margin: int, name: str) -> tuple[int, int]:
    """Height and width of the RGB frames: as declared, or what is left of the image, in multiples of 8 scales."""
    step = 8 * config.rig.scale
    turned = max(image) // config.reduce // 20 if margin else 0
    available = [side // config.reduce - margin - turned for side in image]
    height, width = (
        given or free // step * step
        for given, free in zip((config.height, config.width), available, strict=True)
    )
    if min(height, width) <= 0 or height * config.reduce > image[0] or width * config.reduce > image[1]:
        raise UsageError(
            f"{name}: {image[0]}x{image[1]} pixels are too few for a view of {config.height or step}x"
            f"{config.width or step} reduced {config.reduce} times" + (" and moving" if margin else ""),
            "use larger images, or a smaller height, width, reduce or speed",
        )
    return height, width


def _plain(name: str) -> str:
    """A name made of letters, digits and dashes only."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:40]
