"""Which frames of an evaluation are worth looking at, and their pictures."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.evaluation.judge import JudgedFrame
from model.evaluation.methods import BLURRY, RESTORED, SHARP, SPIKES
from model.evaluation.reduced import WHOLE_PIXELS, ReducedFrame, reduce_frame, shrink
from pipeline.previews.preview import contact_sheet, enlarge

SMALLEST_PANEL = 256
"""Pixels across: below it a label does not fit, and nobody sees much."""
SPREAD_BYTES = 5_000_000
"""Of pictures that a page can spare for frames that are spread over the sequences, at `_PIXEL_BYTES` a pixel."""
_PIXEL_BYTES = 2.0
THUMBNAIL_SIDE = 112
THUMBNAIL_QUALITY = 72
MOST_THUMBNAILS = 1200
"""Of longer tests every second, third, ... frame has one, and each that is pictured."""

MIDDLE, SPREAD = "middle of its sequence", "one of several, evenly spread"
WORST, WORST_OF_SEQUENCE, LOSS = "lowest PSNR", "lowest PSNR of its sequence", "least gain over blurry"
KINDS = (WORST, LOSS, WORST_OF_SEQUENCE, MIDDLE, SPREAD)
"""Why a frame is pictured; what matters most comes first."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A restored frame as a small JPEG."""

    frame: str
    index: int
    jpeg: bytes


@dataclass(slots=True)
class _Lowest:
    """The frames with the lowest values, one a sequence if so wanted; equals by name, not by when they came."""

    size: int
    one_a_sequence: bool = False
    kept: list[tuple[tuple[float, str, int], ReducedFrame]] = field(default_factory=list)

    def wants(self, key: tuple[float, str, int]) -> bool:
        rivals = self._rivals(key)
        if rivals and self.one_a_sequence:
            return key < rivals[0]
        return len(self.kept) < self.size or key < self.kept[-1][0]

    def keep(self, key: tuple[float, str, int], frame: ReducedFrame) -> None:
        if self.one_a_sequence:
            self.kept = [(k, other) for k, other in self.kept if k[1] != key[1]]
        self.kept.append((key, frame))
        self.kept.sort(key=lambda entry: entry[0])
        del self.kept[self.size :]

    def _rivals(self, key: tuple[float, str, int]) -> list[tuple[float, str, int]]:
        return [other for other, _ in self.kept if other[1] == key[1]]


class Album:
    """The frames to look at, chosen while they come one by one; what is kept does not grow with their number.

    Attributes:
        samples: the middle frame of some sequences, in the order they came.
        thumbnails: of the restored frames, by sequence.
    """

    def __init__(self, sequences: Sequence[tuple[str, int]], size: int) -> None:
        """
        Args:
            sequences: name and number of frames of each.
            size: most frames of a kind: middle, lowest PSNR, lowest PSNR of a sequence, least gain.
        """
        self.samples: list[JudgedFrame] = []
        self.thumbnails: dict[str, list[Thumbnail]] = {name: [] for name, _ in sequences}
        self._sequences = tuple(sequences)
        self._middles = middle_frames(sequences, size)
        self._spread: frozenset[tuple[str, int]] | None = None
        self._wanted: dict[tuple[str, int], ReducedFrame] = {}
        self._lowest = {WORST: _Lowest(size), WORST_OF_SEQUENCE: _Lowest(size, True), LOSS: _Lowest(size)}
        self._every = -(-sum(count for _, count in sequences) // MOST_THUMBNAILS)

    def offer(self, frame: JudgedFrame) -> None:
        """Look at a frame and keep what is worth it."""
        place = frame.sequence, frame.index
        if place in self._middles:
            self.samples.append(frame)
        keys = _keys(frame)
        winning = [kind for kind, key in keys.items() if self._lowest[kind].wants(key)]
        if self._spread is None:  # the first frame shows what one costs
            self._spread = spread_frames(self._sequences, int(SPREAD_BYTES / _cost(frame)))
        wanted = place in self._middles or place in self._spread
        if winning or wanted or frame.index % self._every == 0:
            self.thumbnails[frame.sequence].append(_thumbnail(frame))
        if not (winning or wanted):
            return
        reduced = reduce_frame(frame)
        for kind in winning:
            self._lowest[kind].keep(keys[kind], reduced)
        if wanted:
            self._wanted[place] = reduced

    def pictured(self) -> list[tuple[ReducedFrame, tuple[str, ...]]]:
        """The frames to show, in the order of the sequences, each with why: some of `KINDS`."""
        found: dict[tuple[str, int], tuple[ReducedFrame, set[str]]] = {}
        entries: Iterable[tuple[str, ReducedFrame]] = [
            *((kind, frame) for kind, lowest in self._lowest.items() for _, frame in lowest.kept),
            *((MIDDLE if place in self._middles else SPREAD, f) for place, f in self._wanted.items()),
        ]
        for kind, frame in entries:
            found.setdefault((frame.sequence, frame.index), (frame, set()))[1].add(kind)
        order = {name: i for i, (name, _) in enumerate(self._sequences)}
        places = sorted(found, key=lambda place: (order[place[0]], place[1]))
        return [(found[p][0], tuple(kind for kind in KINDS if kind in found[p][1])) for p in places]


def _keys(frame: JudgedFrame) -> dict[str, tuple[float, str, int]]:
    """By kind, what a frame is ranked by."""
    psnr, blurry = frame.psnr, frame.psnrs.get(BLURRY, math.nan)
    if psnr is None or math.isnan(psnr):
        return {}
    place = frame.sequence, frame.index
    keys = {WORST: (psnr, *place), WORST_OF_SEQUENCE: (psnr, *place)}
    return keys | ({LOSS: (psnr - blurry, *place)} if math.isfinite(psnr - blurry) else {})


def _cost(frame: JudgedFrame) -> float:
    """About how many bytes a page needs for a frame's pictures."""
    pixels = min(WHOLE_PIXELS, math.prod(frame.images[BLURRY].shape[-2:]))
    return _PIXEL_BYTES * pixels * len(frame.images)


def middle_frames(sequences: Sequence[tuple[str, int]], most: int) -> frozenset[tuple[str, int]]:
    """The middle frame of at most `most` sequences, evenly spread, from their (name, number of frames)."""
    count = min(most, len(sequences))
    chosen = [sequences[i * len(sequences) // count] for i in range(count)]
    return frozenset((name, num_frames // 2) for name, num_frames in chosen)


def spread_frames(sequences: Sequence[tuple[str, int]], most: int) -> frozenset[tuple[str, int]]:
    """At most `most` frames, evenly spread over all sequences, from their (name, number of frames)."""
    places = [(name, index) for name, num_frames in sequences for index in range(num_frames)]
    count = min(most, len(places))
    return frozenset(places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count))


def panels(frame: JudgedFrame) -> npt.NDArray[np.uint8]:
    """Blurry, restored, sharp and spikes side by side, with labels and scores: (3, h, w); small frames enlarged."""
    scores = frame.psnrs
    shown = [name for name in (BLURRY, RESTORED, SHARP, SPIKES) if name in frame.images]
    labels = [f"{name}  {scores[name]:.2f} dB" if name in scores else name for name in shown]
    images = [frame.images[name].numpy() for name in shown]
    larger = -(-SMALLEST_PANEL // max(image.shape[-1] for image in images))
    return contact_sheet([enlarge(image, larger) for image in images], labels)


def _thumbnail(frame: JudgedFrame) -> Thumbnail:
    image, file = shrink(frame.images[RESTORED].numpy(), THUMBNAIL_SIDE), io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).copy()).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return Thumbnail(frame.frame, frame.index, file.getvalue())
