"""Which frames of an evaluation are worth looking at, and their pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.evaluation.judge import BLURRY, RESTORED, SHARP, SPIKES, JudgedFrame
from pipeline.previews.preview import contact_sheet, enlarge

SMALLEST_PANEL = 256
"""Pixels across: below it a label does not fit, and nobody sees much."""
LOSSLESS_PIXELS = 160_000
"""Pictures of up to this many pixels are embedded as PNG, larger ones as JPEG."""
MAX_SIDE = 1280
"""Larger pictures are shrunk for the report."""
JPEG_QUALITY = 90


@dataclass(slots=True)
class Album:
    """The middle frame of some sequences, and the worst frame of the sequences that came out worst.

    Frames are offered one by one; no more than 2 * `size` + 1 are kept.

    Attributes:
        size: most frames of either kind.
        wanted: (sequence, index) of the middle frames to keep.
        middle: these frames, in the order they came.
        worst: lowest PSNR first, one a sequence.
    """

    size: int
    wanted: frozenset[tuple[str, int]]
    middle: list[JudgedFrame] = field(default_factory=list)
    worst: list[JudgedFrame] = field(default_factory=list)

    def offer(self, frame: JudgedFrame) -> None:
        """Look at a frame and keep it if it is worth it."""
        if (frame.sequence, frame.index) in self.wanted:
            self.middle.append(frame)
        if frame.psnr is None:
            return
        same = next((kept for kept in self.worst if kept.sequence == frame.sequence), None)
        if same is not None:
            if (same.psnr, same.index) <= (frame.psnr, frame.index):
                return
            self.worst.remove(same)
        self.worst.append(frame)
        self.worst.sort(key=lambda kept: (kept.psnr, kept.sequence, kept.index))
        del self.worst[self.size :]


def middle_frames(sequences: Sequence[tuple[str, int]], most: int) -> frozenset[tuple[str, int]]:
    """The middle frame of at most `most` sequences, evenly spread, from their (name, number of frames)."""
    count = min(most, len(sequences))
    chosen = [sequences[i * len(sequences) // count] for i in range(count)]
    return frozenset((name, num_frames // 2) for name, num_frames in chosen)


def panels(frame: JudgedFrame) -> npt.NDArray[np.uint8]:
    """Blurry, restored, sharp and spikes side by side, with labels and scores: (3, h, w); small frames enlarged."""
    scores = frame.psnrs
    shown = [name for name in (BLURRY, RESTORED, SHARP, SPIKES) if name in frame.images]
    labels = [f"{name}  {scores[name]:.2f} dB" if name in scores else name for name in shown]
    images = [frame.images[name].numpy() for name in shown]
    larger = -(-SMALLEST_PANEL // max(image.shape[-1] for image in images))
    return contact_sheet([enlarge(image, larger) for image in images], labels)


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A (3, H, W) picture as a `data:` address: PNG if it is small, else JPEG without colour subsampling."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file, lossless = io.BytesIO(), picture.width * picture.height <= LOSSLESS_PIXELS
    if lossless:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
