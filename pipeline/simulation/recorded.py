"""High-speed recordings as footage: consecutive sharp frames, close enough in time to be joined by straight lines.

Averaging ordinary video makes ghosts, not blur. Between two frames whose motion is at most about a pixel, linear
interpolation is honest; anything faster is refused.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError

BLOCK = 32
"""Side of the blocks whose motion is measured; displacements up to half of it are seen."""
MIN_CONTRAST = 4.0
"""Standard deviation in grey levels below which a block is too flat to show its motion."""
MOVING_SHARE = 0.95
"""The motion of a frame is what this share of its blocks stays within: video compression misleads the others."""
TOLERANCE = 0.25
"""Pixels by which a measurement may be too large."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RecordedFootage:
    """Footage made of `frames` uint8 (M, 3, H, W), `frames_per_exposure` of them to an exposure.

    Time 0 is the middle of the first frame.
    """

    frames: npt.NDArray[np.uint8]
    frames_per_exposure: float

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return self.frames.shape[2]

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return self.frames.shape[3]

    def render(self, time: Doubles) -> npt.NDArray[np.float32]:
        """The recording at each `time` (n,), in exposures: (n, 3, H, W) in [0, 1], linear between frames.

        Raises:
            ValueError: a time outside the recording.
        """
        position = np.asarray(time, np.float64) * self.frames_per_exposure
        if position.min() < 0 or position.max() > len(self.frames) - 1:
            raise ValueError(f"times {time} lie outside a recording of {len(self.frames)} frames")
        before = np.minimum(position.astype(np.int64), len(self.frames) - 2)
        share = (position - before).astype(np.float32)[:, None, None, None]
        light = self.frames[before] * (1 - share) + self.frames[before + 1] * share
        return light * np.float32(1 / 255)


def refuse_fast_motion(frames: npt.NDArray[np.uint8], max_step: float, *, name: str, first: int) -> None:
    """Check that no more than a few blocks move over `max_step` pixels from one of `frames` (M, 3, H, W) to the next.

    Args:
        name: what to call the recording in an error.
        first: number of the first frame in it.

    Raises:
        UsageError: naming the pair of frames and how far they move.
    """
    grey = frames.mean(axis=1, dtype=np.float32)
    steps = [motion(before, after) for before, after in itertools.pairwise(grey)]
    worst = int(np.argmax(steps))
    if steps[worst] > max_step + TOLERANCE:
        raise UsageError(
            f"{name}: frame {first + worst} to {first + worst + 1} moves {steps[worst]:.1f} pixels, more than"
            f" {max_step:g}: averaging such frames makes ghosts, not blur",
            f"film faster, shrink the frames {int(np.ceil(steps[worst] / max_step))} times more (reduce),"
            " or animate single frames instead (motion=animate)",
        )


def motion(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]) -> float:
    """How far, in pixels, the blocks of one grey image (H, W) in 0..255 move to the next; 0 where all are flat.

    Phase correlation (Kuglin & Hines 1975) of half-overlapping, windowed blocks, with a parabola through its peak.
    """
    first, second = _blocks(before), _blocks(after)
    shown = first.std(axis=(1, 2)) > MIN_CONTRAST
    if not shown.any():
        return 0.0
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK))
    spectra = [
        np.fft.rfft2((blocks[shown] - blocks[shown].mean(axis=(1, 2), keepdims=True)) * window)
        for blocks in (first, second)
    ]
    cross = spectra[1] * spectra[0].conj()
    surface = np.fft.irfft2(cross / np.sqrt(np.abs(cross) + 1e-9), s=(BLOCK, BLOCK))
    return float(np.quantile(np.hypot(*_peaks(surface)), MOVING_SHARE))


def _blocks(image: npt.NDArray[np.floating]) -> Doubles:
    """Half-overlapping blocks of (H, W): (n, BLOCK, BLOCK); a smaller image is one block, its edges repeated."""
    padding = [(0, max(0, BLOCK - side)) for side in image.shape]
    image = np.pad(image.astype(np.float64), padding, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(image, (BLOCK, BLOCK))
    return views[:: BLOCK // 2, :: BLOCK // 2].reshape(-1, BLOCK, BLOCK)


def _peaks(surface: Doubles) -> tuple[Doubles, Doubles]:
    """Rows and columns, signed and sub-pixel, of the highest point of each periodic (n, BLOCK, BLOCK) surface."""
    n = np.arange(len(surface))
    row, column = np.divmod(surface.reshape(len(surface), -1).argmax(axis=1), BLOCK)

    def refine(before: Doubles, top: Doubles, after: Doubles) -> Doubles:
        return 0.5 * (before - after) / np.minimum(before - 2 * top + after, -1e-12)

    top = surface[n, row, column]
    up, down = surface[n, row - 1, column], surface[n, (row + 1) % BLOCK, column]
    left, right = surface[n, row, column - 1], surface[n, row, (column + 1) % BLOCK]
    signed = [(place + BLOCK // 2) % BLOCK - BLOCK // 2 for place in (row, column)]
    return signed[0] + refine(up, top, down), signed[1] + refine(left, top, right)
