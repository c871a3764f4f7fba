"""What the bytes of a spike recording mean: the facts a `.dat` does not hold."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline.errors import FormatError

MAX_SIDE = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeFormat:
    """How the bytes of a spike file map to pixels and time. The file itself does not say.

    Attributes:
        height, width: pixels of one frame as they are on file.
        rate_hz: spike frames per second, exactly.
        bit_order: "lsb" when the first pixel of a byte is its lowest bit (the usual one), else "msb".
        flip: "vertical" when the rows are on file bottom-up (the usual one), "none" when upright.
        valid_columns: [first, last + 1) columns of the file that are pixels (SPS10: 400 of its 416).
        padding: "frame" when every frame is filled up to a whole byte, "none" when frames follow directly.
        axes: order of an `.npy` or `.npz` array: time, height, width in some order.
        key: the array to take from an `.npz` holding several.
    """

    height: int
    width: int
    rate_hz: Fraction
    bit_order: Literal["lsb", "msb"] = "lsb"
    flip: Literal["vertical", "none"] = "vertical"
    valid_columns: tuple[int, int] | None = None
    padding: Literal["none", "frame"] = "none"
    axes: Literal["THW", "HWT"] = "THW"
    key: str | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(f"{self.height}x{self.width}: height and width must be 1 to {MAX_SIDE}")
        if isinstance(self.rate_hz, int):
            object.__setattr__(self, "rate_hz", Fraction(self.rate_hz))
        if not isinstance(self.rate_hz, Fraction) or self.rate_hz <= 0:
            raise ValueError(f"rate_hz {self.rate_hz!r} must be a whole number or Fraction above 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} must be {' or '.join(known)}")
        first, last = self.columns
        if not 0 <= first < last <= self.width:
            raise ValueError(f"valid_columns [{first}, {last}) do not lie in a width of {self.width}")

    @property
    def columns(self) -> tuple[int, int]:
        """The [first, last + 1) columns of the file that are pixels."""
        return self.valid_columns or (0, self.width)

    @property
    def valid_width(self) -> int:
        """Pixels of a row once head columns are gone: the width of everything that is read."""
        first, last = self.columns
        return last - first

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in a `.dat`.

        Raises:
            FormatError: the pixels do not fill whole bytes and no padding is declared.
        """
        pixels = self.height * self.width
        if pixels % 8 and self.padding == "none":
            raise FormatError(
                f"{self.height}x{self.width} pixels do not fill whole bytes",
                "correct height and width, or declare `padding: frame` if each frame ends on a whole byte",
            )
        return -(-pixels // 8)


_CHOICES = {
    "bit_order": ("lsb", "msb"),
    "flip": ("vertical", "none"),
    "padding": ("none", "frame"),
    "axes": ("THW", "HWT"),
}
