"""Spike streams on disk: what their bits mean, reading any [start, stop) of frames, writing them.

A `.dat` has no header: height, width, bit order and row order come from a `SpikeFormat`, never from the file.
The layouts are those of SpikeCV load_dat.py, Spike-Zoo spike_utils.py and SpkDeblurNet spike_utils.py.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.arrays import map_npy, read_npz
from pipeline.errors import FormatError
from pipeline.files import atomic_file
from pipeline.inputs import require_file
from pipeline.spike_format import SpikeFormat

Bytes = npt.NDArray[np.uint8]

FRAMES_PER_BLOCK = 64
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
_OTHER_SENSOR = re.compile(rb"(?:%[ \t]?|#!AER-DAT)[\x20-\x7e\t]{3,200}\r?\n")


class SpikeStream:
    """A spike recording, mapped read-only: frames are decoded when asked for, upright, without head columns.

    Attributes:
        path: the file.
        format: how it is laid out.
        shape: (T, H, W) of what `read` gives: `valid_width` wide.
    """

    def __init__(self, path: Path, fmt: SpikeFormat, data: Bytes, *, dense: bool) -> None:
        """Use `open_spikes`. `data` is (T, frame_bytes) packed bits, or when `dense` (T, H, W) 0 and 1."""
        self.path = path
        self.format = fmt
        self.shape = (len(data), fmt.height, fmt.valid_width)
        self._data = data
        self._dense = dense

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"SpikeStream({str(self.path)!r}, shape={self.shape})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the file itself; it is never sent the bytes.
        return open_spikes, (self.path, self.format)

    def read(self, start: int, stop: int) -> Bytes:
        """Frames [start, stop) as (n, H, W) zeros and ones, upright.

        Raises:
            ValueError: the span does not lie in the recording.
            FormatError: an `.npy` or `.npz` holds values other than 0 and 1 there.
        """
        self._require(start, stop)
        block = self._data[start:stop]
        if self._dense:
            frames = np.ascontiguousarray(block).view(np.uint8)
            if frames.size and frames.max() > 1:
                raise FormatError(
                    f"{self.path}: value {frames.max()} in frames {start} to {stop}, expected 0 or 1"
                )
        else:
            frames = _unpack_frames(block, self.format)
        return np.ascontiguousarray(_upright(frames, self.format))

    def packed(self, start: int, stop: int) -> Bytes:
        """Frames [start, stop) as (n, H, ceil(W / 8)) bytes: upright rows, first pixel in the lowest bit.

        A view of the mapped file where its rows are whole bytes, lowest bit first; unused bits are zero.

        Raises:
            ValueError, FormatError: as `read`.
        """
        self._require(start, stop)
        fmt = self.format
        first, last = fmt.columns
        if self._dense or fmt.width % 8 or first % 8 or last % 8:
            return pack_rows(self.read(start, stop))
        rows = self._data[start:stop].reshape(stop - start, fmt.height, fmt.width // 8)
        rows = rows[:, :: -1 if fmt.flip == "vertical" else 1, first // 8 : last // 8]
        return rows if fmt.bit_order == "lsb" else _REVERSED[rows]

    def count(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """How often each pixel fired in frames [start, stop), as (H, W); memory stays bounded."""
        self._require(start, stop)
        counts = np.zeros(self.shape[1:], np.int64)
        for first in range(start, stop, FRAMES_PER_BLOCK):
            frames = self.read(first, min(first + FRAMES_PER_BLOCK, stop))
            counts += frames.sum(axis=0, dtype=np.uint8)  # a block is shorter than 256 frames
        return counts

    def _require(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise ValueError(
                f"{self.path}: frames [{start}, {stop}) do not lie in a recording of {len(self)}"
            )


def open_spikes(path: Path, fmt: SpikeFormat) -> SpikeStream:
    """Open a `.dat` (mapped), `.npy` (mapped) or `.npz` (read whole) recording read-only.

    Raises:
        FormatError: no such file, not an ordinary file, empty, of another sensor, or not what `fmt` says.
    """
    path = Path(path)
    size = require_file(path, "spike")
    suffix = path.suffix.lower()
    if suffix == ".dat":
        return SpikeStream(path, fmt, _map_dat(path, size, fmt), dense=False)
    if suffix in (".npy", ".npz"):
        array = map_npy(path) if suffix == ".npy" else read_npz(path, fmt.key)
        return SpikeStream(path, fmt, _as_frames(path, array, fmt), dense=True)
    raise FormatError(f"{path}: {suffix or 'no suffix'} is not a spike file, expected .dat, .npy or .npz")


def write_dat(path: Path, spikes: Bytes | Iterable[Bytes], fmt: SpikeFormat) -> None:
    """Write frames as a `.dat` laid out by `fmt`; the name appears only when the file is complete.

    Args:
        spikes: (T, H, W) zeros and ones, upright, `valid_width` wide; or an iterable of such blocks.

    Raises:
        ValueError: a block of another shape or with other values, or no frames at all.
        FormatError: frames of `fmt` do not fill whole bytes.
    """
    fmt.frame_bytes  # noqa: B018 - raises when the frames could not be told apart again
    blocks = [spikes] if isinstance(spikes, np.ndarray) else spikes
    with atomic_file(Path(path)) as file:
        if not sum(file.write(_encode(np.asarray(block), fmt)) for block in blocks):
            raise ValueError(f"{path}: no frames to write")


def pack_rows(frames: npt.NDArray[Any]) -> Bytes:
    """Pack (..., H, W) zeros and ones into (..., H, ceil(W / 8)) bytes, first pixel in the lowest bit."""
    return np.packbits(frames, axis=-1, bitorder="little")


def unpack_rows(packed: Bytes, width: int) -> Bytes:
    """Turn the bytes of `pack_rows` back into (..., H, width) zeros and ones.

    Raises:
        ValueError: rows of that width do not have that many bytes.
    """
    if packed.shape[-1] != -(-width // 8):
        raise ValueError(f"{packed.shape[-1]} bytes to a row do not hold {width} pixels")
    return np.unpackbits(packed, axis=-1, count=width, bitorder="little")


def _map_dat(path: Path, size: int, fmt: SpikeFormat) -> Bytes:
    _refuse_other_sensors(path)
    frame_bytes = fmt.frame_bytes
    if size % frame_bytes:
        raise FormatError(
            f"{path}: {size} bytes is not a whole number of {frame_bytes}-byte frames"
            f" ({fmt.height}x{fmt.width}); check the manifest's height and width",
            f"spk inspect {path}",
        )
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(size // frame_bytes, frame_bytes)))


def _refuse_other_sensors(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(256)
    if found := _OTHER_SENSOR.match(head):
        line = found.group().decode("ascii").strip()
        raise FormatError(
            f"{path}: begins with {line!r}: events of an event camera, not the 1-bit frames of a spike camera"
        )


def _as_frames(path: Path, array: npt.NDArray[Any], fmt: SpikeFormat) -> Bytes:
    if array.dtype not in (np.uint8, np.bool_):
        raise FormatError(f"{path}: values of type {array.dtype}, expected uint8 or bool zeros and ones")
    if array.ndim != 3:
        raise FormatError(f"{path}: shape {array.shape}, expected three axes {fmt.axes}")
    frames = array if fmt.axes == "THW" else array.transpose(2, 0, 1)
    if frames.shape[1:] != (fmt.height, fmt.width) or not len(frames):
        raise FormatError(
            f"{path}: shape {array.shape} read as {fmt.axes} is {len(frames)} frames of"
            f" {frames.shape[1]}x{frames.shape[2]}, expected {fmt.height}x{fmt.width}",
            "check the format's height, width and axes",
        )
    return frames


def _unpack_frames(block: Bytes, fmt: SpikeFormat) -> Bytes:
    order: Literal["little", "big"] = "little" if fmt.bit_order == "lsb" else "big"
    pixels = fmt.height * fmt.width
    return np.unpackbits(block, axis=1, count=pixels, bitorder=order).reshape(-1, fmt.height, fmt.width)


def _upright(frames: Bytes, fmt: SpikeFormat) -> Bytes:
    first, last = fmt.columns
    return frames[:, :: -1 if fmt.flip == "vertical" else 1, first:last]


def _encode(frames: npt.NDArray[Any], fmt: SpikeFormat) -> bytes:
    if frames.ndim != 3 or frames.shape[1:] != (fmt.height, fmt.valid_width):
        raise ValueError(f"frames of shape {frames.shape}, expected (T, {fmt.height}, {fmt.valid_width})")
    if frames.dtype != np.bool_ and frames.size and (frames.min() < 0 or frames.max() > 1):
        raise ValueError(f"spikes from {frames.min()} to {frames.max()}, expected zeros and ones")
    on_file = np.zeros((len(frames), fmt.height, fmt.width), np.uint8)
    _upright(on_file, fmt)[:] = frames
    flat = on_file.reshape(len(frames), -1)
    return np.packbits(flat, axis=1, bitorder="little" if fmt.bit_order == "lsb" else "big").tobytes()
