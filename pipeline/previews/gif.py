"""Grey animations, written a frame at a time: a recording of any length takes the memory of one frame.

Pillow collects an animation before it writes it; here it only compresses each frame, into a GIF of its own, whose
image data is then copied. The layout is that of the GIF89a specification (CompuServe, 1990).
"""

import io
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.files import atomic_file

MAX_FPS = 50
"""Players show frames of less than 20 ms at a speed of their own."""
_SCREEN_BYTES = 13
_GREYS = bytes(level for level in range(256) for _ in range(3))
_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def write_gif(path: Path, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> int:
    """Write grey frames (H, W) uint8 as a GIF that repeats for ever, every level as it is; return their number.

    Args:
        fps: frames per second, rounded to what a GIF can say: whole hundredths of a second per frame.

    Raises:
        ValueError: no frames, frames of another size, or a speed that players do not keep.
    """
    delay = delay_of(fps)
    shape: tuple[int, ...] = ()
    count = 0
    with atomic_file(Path(path)) as file:
        for count, frame in enumerate(frames, start=1):
            if count == 1:
                shape = frame.shape
                file.write(
                    b"GIF89a" + struct.pack("<HHBBB", shape[1], shape[0], 0xF7, 0, 0) + _GREYS + _FOREVER
                )
            if frame.dtype != np.uint8 or frame.ndim != 2 or frame.shape != shape:
                raise ValueError(f"frame {count} is {frame.shape} {frame.dtype}, expected {shape} uint8")
            file.write(struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 4, delay, 0, 0))  # keep the frame for its time
            file.write(_image_data(frame))
        if not count:
            raise ValueError(f"{path}: no frames to write")
        file.write(b"\x3b")
    return count


def delay_of(fps: float) -> int:
    """Hundredths of a second that a frame is shown.

    Raises:
        ValueError: more than `MAX_FPS`, or so few that a frame would stay for minutes.
    """
    if not 0.01 <= fps <= MAX_FPS:
        raise ValueError(f"{fps:g} frames per second: expected 0.01 to {MAX_FPS}")
    return round(100 / fps)


def _image_data(frame: npt.NDArray[np.uint8]) -> bytes:
    """The image descriptor and the compressed pixels of a frame."""
    single = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(single, "GIF", optimize=False)
    data = single.getvalue()
    place = _SCREEN_BYTES + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[place] == 0x21:  # extensions, each a kind and blocks up to an empty one
        place = _after_blocks(data, place + 2)
    if data[place] != 0x2C or data[place + 9] & 0x80 or data[_SCREEN_BYTES : _SCREEN_BYTES + 768] != _GREYS:
        raise ValueError("Pillow wrote a GIF that is not one image of 256 greys")
    return data[place : _after_blocks(data, place + 11)]


def _after_blocks(data: bytes, place: int) -> int:
    while data[place]:
        place += 1 + data[place]
    return place + 1
