"""What the bytes of a spike recording mean: the facts a `.dat` does not hold."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline.errors import FormatError

MAX_SIDE = 1 << 14
MAX_PIXELS = 1 << 24
"""Ten times the largest spike cameras: what declares more would only fill the memory."""

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeFormat:
    """How the bytes of a spike file map to pixels and time. The file itself does not say.

    Attributes:
        height, width: pixels of one frame as they are on file.
        rate_hz: spike frames per second, exactly.
        bit_order: "lsb" when the first pixel of a byte is its lowest bit (the usual one), else "msb".
        flip: "vertical" when the rows are on file bottom-up (the usual one), "none" when upright.
        valid_columns: [first, last + 1) columns of the file that are pixels (SPS10: 400 of its 416), or several such
            spans, left to right (SPS100: 1000 of its 1024, in two halves); all columns without.
        padding: "none" when the pixels of a frame fill whole bytes, "frame" when each frame is filled up to one, "end"
            when frames follow bit by bit and only the end of the file is filled up.
        axes: order of an `.npy` or `.npz` array: T (time), H (height) and W (width).
        key: the array to take from an `.npz` holding several.
        num_frames: spike frames that every file holds, where that is known: nothing else shows that frames at the end
            are missing, or that one was lost or recorded twice.
    """

    height: int
    width: int
    rate_hz: Fraction
    bit_order: Literal["lsb", "msb"] = "lsb"
    flip: Literal["vertical", "none"] = "vertical"
    valid_columns: Span | tuple[Span, ...] | None = None
    padding: Literal["none", "frame", "end"] = "none"
    axes: Literal["THW", "TWH", "HTW", "HWT", "WTH", "WHT"] = "THW"
    key: str | None = None
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(f"{self.height}x{self.width}: height and width must be 1 to {MAX_SIDE}")
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"{self.height}x{self.width} is more than {MAX_PIXELS} pixels")
        if isinstance(self.rate_hz, int):
            object.__setattr__(self, "rate_hz", Fraction(self.rate_hz))
        if not isinstance(self.rate_hz, Fraction) or self.rate_hz <= 0:
            raise ValueError(f"rate_hz {self.rate_hz!r} must be a whole number or Fraction above 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} must be {' or '.join(known)}")
        if not self.columns:
            raise ValueError("valid_columns: no columns")
        end = 0
        for first, stop in self.columns:
            if not end <= first < stop <= self.width:
                raise ValueError(
                    f"valid_columns [{first}, {stop}) do not lie, in order, in a width of {self.width}"
                )
            end = stop
        if self.num_frames is not None and self.num_frames < 1:
            raise ValueError(f"num_frames {self.num_frames} must be at least 1")

    @property
    def columns(self) -> tuple[Span, ...]:
        """Spans [first, last + 1) of the file's columns that are pixels, left to right."""
        spans = self.valid_columns
        if spans is None:
            return ((0, self.width),)
        return (spans,) if spans and isinstance(spans[0], int) else spans  # type: ignore[return-value]

    @property
    def valid_width(self) -> int:
        """Pixels of a row once head columns are gone: the width of everything that is read."""
        return sum(stop - first for first, stop in self.columns)

    @property
    def pixels(self) -> int:
        """Pixels of a frame on file, head columns included."""
        return self.height * self.width

    @property
    def frame_bits(self) -> int:
        """Bits from the beginning of one frame in a `.dat` to that of the next.

        Raises:
            FormatError: the pixels do not fill whole bytes and no padding is declared.
        """
        if self.pixels % 8 and self.padding == "none":
            raise FormatError(
                f"{self.height}x{self.width} pixels do not fill whole bytes",
                "correct height and width; or declare `padding: frame` if each frame ends on a whole byte,"
                " `padding: end` if only the file does",
            )
        if self.padding == "end" and self.pixels < 8:
            raise FormatError(
                f"{self.height}x{self.width} pixels are fewer than a byte may be filled up with: a file padded at"
                " its end does not tell how many frames it holds"
            )
        return self.pixels if self.padding == "end" else -(-self.pixels // 8) * 8

    @property
    def frame_text(self) -> str:
        """A frame's size and shape, for messages: "28800-byte frames (360x640)"."""
        size = f"{self.frame_bits}-bit" if self.frame_bits % 8 else f"{self.frame_bits // 8}-byte"
        return f"{size} frames ({self.height}x{self.width})"


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoFormat:
    """A spike format that the recordings themselves are to show: `geometry: auto` in a manifest.

    Attributes:
        geometry: the word "auto".
        rate_hz: spike frames per second, exactly: no content shows it.
        flip: "auto" decides it against the RGB frames, and takes the usual "vertical" where there are none.
    """

    geometry: Literal["auto"]
    rate_hz: Fraction
    flip: Literal["auto", "vertical", "none"] = "auto"

    def __post_init__(self) -> None:
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz {self.rate_hz} must be above 0")


_CHOICES = {
    "bit_order": ("lsb", "msb"),
    "flip": ("vertical", "none"),
    "padding": ("none", "frame", "end"),
    "axes": ("THW", "TWH", "HTW", "HWT", "WTH", "WHT"),
}
