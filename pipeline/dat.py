"""Spike streams on disk: reading any [start, stop) of frames, writing them.

A `.dat` has no header: height, width, bit order and row order come from a `SpikeFormat`, never from the file.
The layouts are those of SpikeCV load_dat.py, Spike-Zoo spike_utils.py, SpkDeblurNet spike_utils.py (whole bytes to a
frame), Spiking-Camera-Simulator-SPCS v2s.py (frames filled up) and SpikeCV get_spike_matrix (a continuous bit string).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays import map_npy, read_npz
from pipeline.errors import FormatError
from pipeline.files import atomic_file
from pipeline.inputs import require_file
from pipeline.recognition.other_files import refuse_other_files
from pipeline.spike_format import SpikeFormat

Bytes = npt.NDArray[np.uint8]

FRAMES_PER_BLOCK = 64
BLOCK_BYTES = 1 << 26
"""Decoded pixels of a block: large frames are counted fewer at a time."""
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


class SpikeStream:
    """A spike recording, mapped read-only: frames are decoded when asked for, upright, without head columns.

    Attributes:
        path: the file.
        format: how it is laid out.
        shape: (T, H, W) of what `read` gives: `valid_width` wide.
    """

    def __init__(self, path: Path, fmt: SpikeFormat, frames: "_Frames") -> None:
        """Use `open_spikes`."""
        self.path = path
        self.format = fmt
        self.shape = (len(frames), fmt.height, fmt.valid_width)
        self._frames = frames

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
            FormatError: an array holds values other than 0 and 1 there; or bits that fill up a frame are not zero.
        """
        self._require(start, stop)
        return np.ascontiguousarray(_upright(self._frames.on_file(start, stop), self.format))

    def packed(self, start: int, stop: int) -> Bytes:
        """Frames [start, stop) as (n, H, ceil(W / 8)) bytes: upright rows, first pixel in the lowest bit.

        A view of the mapped file where its rows are whole bytes, lowest bit first; unused bits are zero.

        Raises:
            ValueError, FormatError: as `read`.
        """
        self._require(start, stop)
        rows = self._frames.rows(start, stop)
        return pack_rows(self.read(start, stop)) if rows is None else rows

    def count(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """How often each pixel fired in frames [start, stop), as (H, W); memory stays bounded."""
        self._require(start, stop)
        counts = np.zeros(self.shape[1:], np.int64)
        step = max(1, min(FRAMES_PER_BLOCK, BLOCK_BYTES // (self.format.height * self.format.width)))
        for first in range(start, stop, step):
            frames = self.read(first, min(first + step, stop))
            counts += frames.sum(axis=0, dtype=np.uint8)  # a block is shorter than 256 frames
        return counts

    def _require(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise ValueError(
                f"{self.path}: frames [{start}, {stop}) do not lie in a recording of {len(self)}"
            )


def open_spikes(path: Path, fmt: SpikeFormat) -> SpikeStream:
    """Open a `.dat` (mapped), `.npy` (mapped) or `.npz` (read whole) recording read-only.

    An array of one axis is the bytes of a `.dat`; one of three axes has a pixel in each value, 0 or 1.

    Raises:
        FormatError: no such file, not an ordinary file, empty, of another sensor, or not what `fmt` says.
    """
    path = Path(path)
    size = require_file(path, "spike")
    suffix = path.suffix.lower()
    if suffix == ".dat":
        refuse_other_files(path)
        return _stream(path, fmt, np.asarray(np.memmap(path, np.uint8, "r", shape=(size,))))
    if suffix in (".npy", ".npz"):
        return _stream(path, fmt, map_npy(path) if suffix == ".npy" else read_npz(path, fmt.key))
    raise FormatError(f"{path}: {suffix or 'no suffix'} is not a spike file, expected .dat, .npy or .npz")


def write_dat(path: Path, spikes: Bytes | Iterable[Bytes], fmt: SpikeFormat) -> None:
    """Write frames as a `.dat` laid out by `fmt`; the name appears only when the file is complete.

    Args:
        spikes: (T, H, W) zeros and ones, upright, `valid_width` wide; or an iterable of such blocks.

    Raises:
        ValueError: a block of another shape or with other values, no frames, or not `fmt.num_frames`.
        FormatError: frames of `fmt` do not fill whole bytes.
    """
    fmt.frame_bits  # noqa: B018 - raises when the frames could not be told apart again
    blocks = (np.asarray(block) for block in ([spikes] if isinstance(spikes, np.ndarray) else spikes))
    written = 0
    with atomic_file(Path(path)) as file:
        rest = np.zeros(0, np.uint8)  # bits that do not fill a byte yet
        for block in blocks:
            bits = np.concatenate([rest, _bits_of(_on_file(block, fmt), fmt)])
            whole = len(bits) - len(bits) % 8
            file.write(np.packbits(bits[:whole], bitorder=_order(fmt)).tobytes())
            rest, written = bits[whole:], written + len(block)
        file.write(np.packbits(rest, bitorder=_order(fmt)).tobytes())
        _require_written(path, written, fmt)


def write_array(path: Path, spikes: Bytes, fmt: SpikeFormat) -> None:
    """Write frames as an `.npy`, or the one array of a compressed `.npz`, with the axes of `fmt`.

    Args:
        spikes: (T, H, W) zeros and ones, upright, `valid_width` wide.

    Raises:
        ValueError: another shape or other values, another suffix, no frames, or not `fmt.num_frames`.
    """
    path = Path(path)
    _require_written(path, len(spikes), fmt)
    array = _on_file(spikes, fmt).transpose(["THW".index(axis) for axis in fmt.axes])
    with atomic_file(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, np.ascontiguousarray(array))
        elif path.suffix.lower() == ".npz":
            np.savez_compressed(file, **{fmt.key or "arr_0": array})
        else:
            raise ValueError(f"{path}: arrays are written to .npy and .npz")


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


class _Frames(Protocol):
    """The frames of a file, as they lie on it."""

    def __len__(self) -> int: ...

    def on_file(self, start: int, stop: int) -> Bytes:
        """Frames [start, stop) as (n, height, width) zeros and ones."""
        ...

    def rows(self, start: int, stop: int) -> Bytes | None:
        """What `SpikeStream.packed` gives, if the bytes of the file hold it; else None."""
        ...


def _stream(path: Path, fmt: SpikeFormat, array: npt.NDArray[Any]) -> SpikeStream:
    if array.dtype not in (np.uint8, np.bool_):
        raise FormatError(f"{path}: values of type {array.dtype}, expected uint8 or bool zeros and ones")
    is_bits = array.ndim == 1 and array.dtype == np.uint8
    frames: _Frames = _Bits(path, fmt, array) if is_bits else _Pixels(path, fmt, array)
    if fmt.num_frames not in (None, len(frames)):
        raise FormatError(
            f"{path}: holds {len(frames)} spike frames, and {fmt.num_frames} were declared",
            "copy it again from its source, or correct num_frames",
        )
    return SpikeStream(path, fmt, frames)


@dataclass(frozen=True, eq=False)
class _Bits:
    """One bit to a pixel: the bytes (size,) of a `.dat`.

    Raises:
        FormatError: they are no whole number of frames.
    """

    path: Path
    format: SpikeFormat
    data: Bytes

    def __post_init__(self) -> None:
        fmt, bits = self.format, 8 * len(self.data)
        over = bits % fmt.frame_bits
        if not len(self) or over >= 8 or (over and fmt.padding != "end"):
            raise FormatError(
                f"{self.path}: {len(self.data)} bytes is not a whole number of {fmt.frame_text};"
                " check the manifest's height and width",
                f"spk inspect {self.path}",
            )
        if over and np.unpackbits(self.data[-1:], bitorder=_order(fmt))[8 - over :].any():
            raise self._not_zero("the end of the file")

    def __len__(self) -> int:
        return 8 * len(self.data) // self.format.frame_bits

    def on_file(self, start: int, stop: int) -> Bytes:
        fmt = self.format
        first, last = start * fmt.frame_bits, stop * fmt.frame_bits
        bits = np.unpackbits(self.data[first // 8 : -(-last // 8)], bitorder=_order(fmt))
        frames = bits[first % 8 : first % 8 + last - first].reshape(-1, fmt.frame_bits)
        if frames[:, fmt.pixels :].any():
            raise self._not_zero(f"spike frame {start + int(frames[:, fmt.pixels :].any(axis=1).argmax())}")
        return frames[:, : fmt.pixels].reshape(-1, fmt.height, fmt.width)

    def rows(self, start: int, stop: int) -> Bytes | None:
        fmt = self.format
        if len(fmt.columns) > 1 or any(edge % 8 for edge in (fmt.width, *fmt.columns[0])):
            return None
        (first, last), frame_bytes = fmt.columns[0], fmt.frame_bits // 8
        rows = self.data[start * frame_bytes : stop * frame_bytes].reshape(-1, fmt.height, fmt.width // 8)
        rows = rows[:, :: -1 if fmt.flip == "vertical" else 1, first // 8 : last // 8]
        return rows if fmt.bit_order == "lsb" else _REVERSED[rows]

    def _not_zero(self, where: str) -> FormatError:
        fmt = self.format
        return FormatError(
            f"{self.path}: the bits that fill up {where} are not zero, as they would be in"
            f" {fmt.height}x{fmt.width} {fmt.bit_order} frames with padding {fmt.padding!r}: bytes were lost, or the"
            " format is another one",
            f"spk inspect {self.path}",
        )


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A byte to a pixel: an array of three axes in the order of `format.axes`.

    Raises:
        FormatError: it has another shape.
    """

    path: Path
    format: SpikeFormat
    data: npt.NDArray[Any]

    def __post_init__(self) -> None:
        fmt, shape = self.format, self.data.shape
        if len(shape) != 3:
            raise FormatError(f"{self.path}: shape {shape}, expected three axes {fmt.axes}")
        frames = self._in_time()
        if frames.shape[1:] != (fmt.height, fmt.width) or not len(frames):
            raise FormatError(
                f"{self.path}: shape {shape} read as {fmt.axes} is {len(frames)} frames of"
                f" {frames.shape[1]}x{frames.shape[2]}, expected {fmt.height}x{fmt.width}",
                "check the format's height, width and axes",
            )

    def __len__(self) -> int:
        return len(self._in_time())

    def on_file(self, start: int, stop: int) -> Bytes:
        frames = np.ascontiguousarray(self._in_time()[start:stop]).view(np.uint8)
        if frames.size and frames.max() > 1:
            raise FormatError(
                f"{self.path}: value {frames.max()} in frames {start} to {stop}, expected 0 or 1"
            )
        return frames

    def rows(self, start: int, stop: int) -> None:
        return None

    def _in_time(self) -> npt.NDArray[Any]:
        return self.data.transpose([self.format.axes.index(axis) for axis in "THW"])


def _order(fmt: SpikeFormat) -> Literal["little", "big"]:
    return "little" if fmt.bit_order == "lsb" else "big"


def _upright(frames: Bytes, fmt: SpikeFormat) -> Bytes:
    frames = frames[:, :: -1 if fmt.flip == "vertical" else 1]
    parts = [frames[:, :, first:last] for first, last in fmt.columns]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _on_file(frames: npt.NDArray[Any], fmt: SpikeFormat) -> Bytes:
    """Upright (T, H, valid_width) frames as (T, height, width) on file; head columns are zeros."""
    if frames.ndim != 3 or frames.shape[1:] != (fmt.height, fmt.valid_width):
        raise ValueError(f"frames of shape {frames.shape}, expected (T, {fmt.height}, {fmt.valid_width})")
    if frames.dtype != np.bool_ and frames.size and (frames.min() < 0 or frames.max() > 1):
        raise ValueError(f"spikes from {frames.min()} to {frames.max()}, expected zeros and ones")
    on_file = np.zeros((len(frames), fmt.height, fmt.width), np.uint8)
    done = 0
    for first, last in fmt.columns:
        on_file[:, :, first:last] = frames[:, :, done : done + last - first]
        done += last - first
    return on_file[:, ::-1] if fmt.flip == "vertical" else on_file


def _bits_of(on_file: Bytes, fmt: SpikeFormat) -> Bytes:
    """All bits of some frames one after the other, each frame filled up as the format says: (n * frame_bits,)."""
    flat = on_file.reshape(len(on_file), -1)
    return np.pad(flat, [(0, 0), (0, fmt.frame_bits - fmt.pixels)]).ravel()


def _require_written(path: Path, frames: int, fmt: SpikeFormat) -> None:
    if not frames:
        raise ValueError(f"{path}: no frames to write")
    if fmt.num_frames not in (None, frames):
        raise ValueError(f"{path}: {frames} frames to write, but the format declares {fmt.num_frames}")
