"""The error curves of an alignment check as a picture: one small diagram a sequence, drawn with Pillow."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.alignment.check import SequenceOffset
from pipeline.alignment.offsets import Estimate
from pipeline.images import write_png
from pipeline.previews.preview import PAPER

Point = tuple[float, float]

CELL_WIDTH, CELL_HEIGHT, GAP = 300, 190, 18
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 44, 34
"""Around the axes of a diagram, in pixels."""
MOST_COLUMNS, MOST_DRAWN = 4, 60
OVERSAMPLING = 2
"""Everything is drawn larger by this factor and shrunk, which smooths the lines."""
INK, SOFT, GRID = (24, 24, 28), (104, 108, 118), (226, 226, 222)
COLOURS = {
    "aligned": (22, 121, 74),
    "shifted": (179, 54, 43),
    "drifting": (179, 54, 43),
    "undecidable": (125, 129, 140),
}


def draw_alignment(found: Sequence[SequenceOffset], picture: Path) -> None:
    """Draw the error curve of every sequence into a PNG.

    The error is the variance of what the spikes do not explain, above its lowest value; the dashed line is where the
    exposures are now, the band the interval of the best offset, the dot the best offset. Of very many sequences those
    that are off are drawn first.

    Raises:
        ValueError: nothing to draw.
    """
    if not found:
        raise ValueError("no sequences to draw")
    found = sorted(found, key=lambda one: not one.is_off)[:MOST_DRAWN] if len(found) > MOST_DRAWN else found
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(found))))
    rows = math.ceil(len(found) / columns)
    size = [GAP + n * (side + GAP) for n, side in ((columns, CELL_WIDTH), (rows, CELL_HEIGHT))]
    sheet = Image.new("RGB", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), (PAPER, PAPER, PAPER))
    for number, one in enumerate(found):
        row, column = divmod(number, columns)
        origin = GAP + column * (CELL_WIDTH + GAP), GAP + row * (CELL_HEIGHT + GAP)
        _Diagram(sheet, origin, one.estimates.whole).draw(one.key)
    image = sheet.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    write_png(picture, np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))


class _Diagram:
    """One diagram of a sheet."""

    def __init__(self, sheet: Image.Image, origin: tuple[int, int], found: Estimate) -> None:
        self._pen = ImageDraw.Draw(sheet)
        self._origin = origin
        self._found = found
        offsets, error = found.offsets or (-1, 1), found.error or (1.0, 1.0)
        self._x = offsets[0], offsets[-1]
        self._top = max(*error, 1.002)
        self._curve = list(zip(found.offsets, found.error, strict=True))

    def draw(self, title: str) -> None:
        """Title and verdict, axes, interval, curve, best offset."""
        found, colour = self._found, COLOURS[self._found.verdict]
        self._text((0, 0), _cut(title, 42), INK, 14)
        self._text((0, 19), _summary(found), colour, 12)
        self._interval(colour)
        self._axes()
        if len(self._curve) > 1:
            self._line([self._place(x, y) for x, y in self._curve], colour, 2)
            for x, y in self._curve:
                self._dot(self._place(x, y), 1.6, colour)
        else:
            self._text((CELL_WIDTH // 2 - 30, CELL_HEIGHT // 2), "no curve", SOFT, 12)
        if found.best is not None and found.verdict != "undecidable":
            self._dot(self._place(found.best, 1.0), 4.5, colour)

    def _axes(self) -> None:
        first, last = self._x
        step = next(n for n in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if (last - first) / n <= 8)
        bottom = CELL_HEIGHT - BOTTOM
        self._text((CELL_WIDTH - RIGHT, 20), "error above the best", SOFT, 10, right=True)
        for x in range(math.ceil(first / step) * step, last + 1, step):
            at, _ = self._place(x, 1.0)
            self._line([(at, bottom), (at, bottom + 4)], SOFT, 1)
            self._text((at, bottom + 5), f"{x:+d}" if x else "0", SOFT, 10, centred=True)
        for share in (0.0, 0.5, 1.0):
            value = 1 + share * (self._top - 1)
            _, at = self._place(first, value)
            self._line([(LEFT, at), (CELL_WIDTH - RIGHT, at)], GRID, 1)
            self._text((LEFT - 6, at - 6), _tick(value - 1), SOFT, 10, right=True)
        self._line([(LEFT, bottom), (CELL_WIDTH - RIGHT, bottom)], SOFT, 1)
        zero, _ = self._place(0, 1.0)
        for y in range(TOP, bottom, 8):
            self._line([(zero, y), (zero, min(y + 4, bottom))], SOFT, 1)
        middle = (LEFT + CELL_WIDTH - RIGHT) / 2
        self._text((middle, bottom + 18), "spike frames added to the exposures", SOFT, 10, centred=True)

    def _interval(self, colour: tuple[int, int, int]) -> None:
        if self._found.low is None or self._found.high is None or self._found.verdict == "undecidable":
            return
        first, last = self._x
        low, _ = self._place(max(self._found.low, first), 1.0)
        high, _ = self._place(min(self._found.high, last), 1.0)
        pale = tuple(round(PAPER + (value - PAPER) * 0.18) for value in colour)
        self._pen.rectangle(
            [*self._on_sheet((low, TOP)), *self._on_sheet((high, CELL_HEIGHT - BOTTOM))], pale
        )

    def _place(self, offset: float, error: float) -> Point:
        first, last = self._x
        width, height = CELL_WIDTH - LEFT - RIGHT, CELL_HEIGHT - TOP - BOTTOM
        x = LEFT + width * (offset - first) / (last - first)
        return x, TOP + height * (1 - 0.92 * (error - 1) / (self._top - 1)) - 0.04 * height

    def _on_sheet(self, point: Point) -> Point:
        x, y = point
        return (self._origin[0] + x) * OVERSAMPLING, (self._origin[1] + y) * OVERSAMPLING

    def _line(self, points: Sequence[Point], colour: tuple[int, int, int], width: float) -> None:
        at = [self._on_sheet(point) for point in points]
        self._pen.line(at, colour, round(width * OVERSAMPLING), joint="curve")

    def _dot(self, point: Point, radius: float, colour: tuple[int, int, int]) -> None:
        x, y = self._on_sheet(point)
        reach = radius * OVERSAMPLING
        self._pen.ellipse([x - reach, y - reach, x + reach, y + reach], colour)

    def _text(
        self,
        point: Point,
        text: str,
        colour: tuple[int, int, int],
        size: int,
        *,
        centred: bool = False,
        right: bool = False,
    ) -> None:
        anchor = "ma" if centred else "ra" if right else "la"
        font = ImageFont.load_default(size * OVERSAMPLING)
        self._pen.text(self._on_sheet(point), text, colour, font, anchor)


def _summary(found: Estimate) -> str:
    if found.verdict == "undecidable" or found.best is None or found.low is None or found.high is None:
        return "undecidable"
    interval = f"{_signed(found.best)} [{_signed(found.low)}, {_signed(found.high)}]"
    verdict = f"shifted by {found.offset:+d}" if found.verdict == "shifted" else found.verdict
    return f"{verdict}, best {interval}"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _tick(share: float) -> str:
    if share == 0:
        return "0"
    return f"+{share:.0%}" if share >= 0.1 else f"+{share:.1%}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
