"""Light played back from spikes: a picture of any instant of a recording, by one of three methods.

All give light per frame in units of white, threshold times a rate: white is 1.0 and becomes 255.

tfp     mean of the 2 h + 1 frames from h before an instant to h after it; fewer where the recording ends
tfi     threshold / interval between the spikes around an instant
mean    mean of the frames of an exposure, or of windows that follow one another where there are no exposures
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.images import write_png
from pipeline.previews.gif import write_gif
from pipeline.previews.preview import (
    LABEL_HEIGHT,
    WHITE_PERCENTILE,
    Floats,
    contact_sheet,
    enlarge,
    mean_light,
    text_strip,
    tfi,
    to_grey8,
)
from pipeline.previews.spike_source import OpenedSpikes
from pipeline.reports import Progress, no_progress

U8 = npt.NDArray[np.uint8]

Method = Literal["tfp", "tfi", "mean"]
DEFAULT_THRESHOLD = 2.0
"""That of the public simulated data sets, for recordings that do not tell theirs."""
STRIP, MOST_IN_STRIP, MOST_IN_GIF = 6, 48, 200
MIN_WIDTH = 256
"""Pictures narrower than this are shown enlarged: their labels need the room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The light of an instant.

    Attributes:
        light: (H, W), white is 1.0.
        label: what it shows.
        num_bounds: pixels of `tfi` that have no interval, and an upper bound instead.
    """

    light: Floats
    label: str
    num_bounds: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Playback:
    """How the light of a recording is worked out.

    Attributes:
        source: the recording.
        method: tfp, tfi or mean.
        threshold: the light of one spike.
        half_window: h of tfp.
        window: frames of a mean where the recording has no exposures; all of them unless given.
    """

    source: OpenedSpikes
    method: Method = "tfp"
    threshold: float = DEFAULT_THRESHOLD
    half_window: int = 16
    window: int | None = None

    def moments(self, start: int = 0, stop: int | None = None) -> range:
        """What there is to picture in frames [start, stop): instants for tfp and tfi, else numbers of exposures.

        The windows of tfp all lie in the recording, if it is as long as one; those of a mean in [start, stop).

        Raises:
            UsageError: there is nothing in that span.
        """
        num_frames = self.source.shape[0]
        stop = num_frames if stop is None else stop
        if not 0 <= start < stop <= num_frames:
            raise UsageError(
                f"{self.source.name}: no frames [{start}, {stop}) in a recording of {num_frames}"
            )
        found = range(start, stop)
        if self.method == "tfp" and num_frames > 2 * self.half_window:
            found = range(max(start, self.half_window), min(stop, num_frames - self.half_window))
        elif self.method == "tfp":
            found = range(num_frames // 2, num_frames // 2 + 1)
        elif self.method == "mean":
            spans = self._spans()
            inside = np.flatnonzero((spans[:, 0] >= start) & (spans[:, 1] <= stop))
            found = range(inside[0], inside[-1] + 1) if len(inside) else range(0)
        if not found:
            raise UsageError(
                f"{self.source.name}: no whole window of {self.method} lies in frames [{start}, {stop})",
                "choose a longer span, or a smaller --half-window or --window",
            )
        return found

    def picture(self, moment: int) -> Picture:
        """The light of one of the `moments`, or, with tfp and tfi, of any frame.

        Raises:
            UsageError: no such frame.
        """
        num_frames = self.source.shape[0]
        if self.method == "mean":
            start, stop = map(int, self._spans()[moment])
        elif not 0 <= moment < num_frames:
            raise UsageError(f"{self.source.name}: no frame {moment} in a recording of {num_frames}")
        else:
            start, stop = max(0, moment - self.half_window), min(num_frames, moment + self.half_window + 1)
        if self.method == "tfi":
            light, is_bound = tfi(self.source, moment, self.threshold)
            return Picture(light=light, label=f"{self._when(moment)}, tfi", num_bounds=int(is_bound.sum()))
        light = mean_light(self.source, start, stop, self.threshold)
        where = f"frames {start} to {stop - 1}, mean"
        if self.method == "tfp":
            where = f"{self._when(moment)}, tfp of {stop - start}"
        return Picture(light=light, label=where)

    def _spans(self) -> npt.NDArray[np.int64]:
        """Spans of the windows of `mean`, (N, 2)."""
        if self.source.exposures is not None:
            return self.source.exposures
        num_frames = self.source.shape[0]
        length = self.window or num_frames
        starts = np.arange(0, num_frames - length + 1, length)
        return np.stack([starts, starts + length], axis=1)

    def _when(self, frame: int) -> str:
        """A frame and, where the rate is known, the time of its middle."""
        rate = self.source.rate_hz
        return f"frame {frame}" + (f", {float((2 * frame + 1) * 500 / rate):.2f} ms" if rate else "")


def spread(moments: Sequence[int], count: int) -> list[int]:
    """At most `count` of the moments, the middles of as many equal parts."""
    count = min(count, len(moments))
    return [moments[(2 * i + 1) * len(moments) // (2 * count)] for i in range(count)]


def usual_white(playback: Playback, moments: Sequence[int]) -> float:
    """The light that is white in pictures of good contrast: one for all of a recording, so that it does not flicker."""
    lights = np.stack([playback.picture(moment).light for moment in spread(moments, STRIP)])
    return float(np.percentile(lights, WHITE_PERCENTILE)) or float(lights.max()) or 1.0


def draw_strip(
    path: Path,
    playback: Playback,
    moments: Sequence[int],
    white: float = 1.0,
    progress: Progress = no_progress,
) -> int:
    """Draw moments into a PNG, one as its bare pixels, several side by side with labels; count the bounds of tfi.

    Raises:
        UsageError: too many for one picture.
    """
    if len(moments) > MOST_IN_STRIP:
        raise UsageError(
            f"{len(moments)} pictures are too many for a PNG, at most {MOST_IN_STRIP}",
            "use a larger --every, or write a .gif",
        )
    pictures = list(_pictures(playback, moments, progress))
    images = [to_grey8(picture.light, white) for picture in pictures]
    if len(images) == 1:
        write_png(path, images[0])
    else:
        images, labels = [enlarge(image, _zoom(image)) for image in images], [one.label for one in pictures]
        write_png(path, contact_sheet(images, labels, columns=min(3, len(images))))
    return sum(picture.num_bounds for picture in pictures)


def draw_animation(
    path: Path,
    playback: Playback,
    moments: Sequence[int],
    fps: float,
    white: float = 1.0,
    progress: Progress = no_progress,
) -> int:
    """Draw moments as a GIF, each with its label above; count the bounds of tfi. Memory is that of a few pictures."""
    bounds = 0

    def frames() -> Iterator[U8]:
        nonlocal bounds
        for picture in _pictures(playback, moments, progress):
            bounds += picture.num_bounds
            image = to_grey8(picture.light, white)
            image = enlarge(image, _zoom(image))
            yield np.concatenate([text_strip(picture.label, image.shape[1], LABEL_HEIGHT), image])

    write_gif(path, frames(), fps)
    return bounds


def _pictures(playback: Playback, moments: Sequence[int], progress: Progress) -> Iterator[Picture]:
    for count, moment in enumerate(moments, start=1):
        yield playback.picture(moment)
        progress(count, len(moments), "pictures drawn")


def _zoom(image: U8) -> int:
    return -(-MIN_WIDTH // image.shape[1])
