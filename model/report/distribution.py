"""How the frames spread: how many gain how much over the blurry input, and where the gain is."""

import math
from collections.abc import Sequence
from html import escape

from model.evaluation.methods import BLURRY
from model.report import axes
from model.report.frames import FrameRow
from model.report.marks import PSNR, counted, signed

BARS = 24
"""Of a histogram, at most about."""
MOST_POINTS = 2000
"""Of a scatter plot; of more frames every second, third, ... is drawn."""


def histogram(rows: Sequence[FrameRow]) -> str:
    """How many frames gain how much PSNR over the blurry input; bars of losses are red."""
    gains = [row.gain for row in rows if row.gain is not None]
    if not gains:
        return "<p>No frame has a finite gain.</p>"
    edges = axes.round_levels(min(gains), max(gains), BARS, 0.05)
    counts = _counts(gains, edges)
    heights = axes.round_levels(0, max(counts), 4, 1)
    grid, labels = axes.rows(heights)
    ticks = axes.round_levels(edges[0], edges[-1], 6, 0.1)
    below = "".join(
        f'<span class="x" style="left:{axes.percent(tick, edges):.2f}%">{axes.written(tick)}</span>'
        for tick in ticks
        if edges[0] <= tick <= edges[-1]
    )
    bars = "".join(_bar(*bar, edges, heights) for bar in zip(edges, edges[1:], counts) if bar[2])  # noqa: B905
    middle = sorted(gains)[len(gains) // 2]
    about = f"Gain over blurry (dB), {counted(len(gains), 'frame')}; median {signed(middle)}"
    return (
        f"<figure><figcaption>{about}</figcaption>"
        f'<div class="plot" role="img" aria-label="histogram of the gain over blurry in dB">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{grid}{bars}</svg>{labels}{below}</div></figure>'
    )


def _counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each [edge, next edge); the last bar has its end as well."""
    counts, step = [0] * (len(edges) - 1), edges[1] - edges[0]
    for value in values:
        counts[min(len(counts) - 1, max(0, math.floor((value - edges[0]) / step + 1e-9)))] += 1
    return counts


def _bar(low: float, high: float, count: int, edges: Sequence[float], heights: Sequence[float]) -> str:
    x, width = axes.percent(low, edges), axes.percent(high, edges) - axes.percent(low, edges)
    height = axes.percent(count, heights)
    kind = "lost" if high <= 0 else "won"
    return (
        f'<rect class="{kind}" x="{x + width * 0.06:.3f}" width="{width * 0.88:.3f}" y="{100 - height:.2f}"'
        f' height="{height:.2f}"><title>{signed(low)} to {signed(high)} dB: {counted(count, "frame")}</title></rect>'
    )


def scatter(rows: Sequence[FrameRow]) -> str:
    """Restored PSNR against that of the blurry input, a point a frame; above the diagonal is a gain."""
    known = [row for row in rows if row.gain is not None]
    if not known:
        return "<p>No frame has a finite gain.</p>"
    shown = known[:: math.ceil(len(known) / MOST_POINTS)]
    values = [value for row in shown for value in (row.psnr, row.psnrs[BLURRY])]
    levels = axes.round_levels(min(values), max(values))
    (across, beside), (down, below) = axes.rows(levels), axes.columns(levels)
    points = "".join(_point(row, levels) for row in shown)
    return (
        "<figure><figcaption>PSNR restored over PSNR blurry (dB); above the line is a gain</figcaption>"
        '<div class="plot square" role="img" aria-label="PSNR restored against PSNR blurry">'
        f'<svg viewBox="0 0 100 100">{across}{down}<line class="even" x1="0" y1="100" x2="100" y2="0"/>{points}</svg>'
        f"{beside}{below}</div></figure>"
    )


def _point(row: FrameRow, levels: Sequence[float]) -> str:
    x, y = axes.percent(row.psnrs[BLURRY], levels), 100 - axes.percent(row.psnr, levels)
    about = escape(f"{row.name}: {PSNR.text(row.psnrs[BLURRY])} to {PSNR.text(row.psnr)} dB")
    return (
        f'<circle class="{"won" if row.won else "lost"}" cx="{x:.2f}" cy="{y:.2f}" r=".9"'
        f' data-sequence="{escape(row.sequence)}" data-index="{row.index}"><title>{about}</title></circle>'
    )
