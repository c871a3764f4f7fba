"""The plot of PSNR over frames, as SVG with labels in HTML, so that text keeps its size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from model.evaluation.results import Results
from model.evaluation.scores import finite_mean
from model.report import axes
from model.report.frames import FrameRow
from model.report.marks import colour_of, main_methods, title

MAX_POINTS = 1200
"""Of a plot along its axis; longer tests are averaged over neighbouring frames."""
MOST_NAMES = 12
"""Sequences that are named under a plot; more are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """PSNR over frames.

    Attributes:
        points: sequence, frame and index of the frame at each point, the first where it is the mean of several.
        lines: method, colour and one value a point, in drawing order: the last is on top. Infinite where a frame
            is identical to the sharp one, NaN where a method was not scored.
        frames_per_point: how many frames a point is the mean of.
    """

    points: tuple[tuple[str, str, int], ...]
    lines: tuple[tuple[str, str, tuple[float, ...]], ...]
    frames_per_point: int

    @property
    def edges(self) -> tuple[tuple[int, str], ...]:
        """First point of each sequence, and its name."""
        names = [sequence for sequence, _, _ in self.points]
        return tuple((i, name) for i, name in enumerate(names) if i == 0 or names[i - 1] != name)

    def to_json(self) -> dict[str, Any]:
        """What the page's script needs to name the point under the pointer."""
        lines = [
            {
                "label": label,
                "colour": colour,
                "values": [round(v, 3) if math.isfinite(v) else None for v in values],
            }
            for label, colour, values in reversed(self.lines)
        ]
        return {"points": self.points, "lines": lines}


def plot_of(results: Results, rows: Sequence[FrameRow]) -> Plot | None:
    """The plot of some frames, of all methods that saw the data as it is; None without frames."""
    if not rows:
        return None
    size = math.ceil(len(rows) / MAX_POINTS)
    groups: list[list[FrameRow]] = []
    for row in rows:
        if not groups or len(groups[-1]) == size or groups[-1][0].sequence != row.sequence:
            groups.append([])
        groups[-1].append(row)
    lines = (
        (
            title(name),
            colour_of(results, name),
            tuple(finite_mean([row.psnrs.get(name, math.nan) for row in group]) for group in groups),
        )
        for name in reversed(main_methods(results))
    )
    return Plot(
        points=tuple((group[0].sequence, group[0].frame, group[0].index) for group in groups),
        lines=tuple(lines),
        frames_per_point=size,
    )


def chart(plot: Plot | None, key: str) -> str:
    """A plot as HTML.

    Args:
        key: by which the page's script finds its values.
    """
    finite = [v for _, _, values in plot.lines for v in values if math.isfinite(v)] if plot else []
    if plot is None or not finite:
        return "<p>No frame has a finite PSNR to plot.</p>"
    levels = axes.round_levels(min(finite), max(finite))
    grid, labels = axes.rows(levels)
    count = len(plot.points)
    cuts = "".join(_divider(100 * i / count) for i, _ in plot.edges[1:])
    paths = "".join(_path(colour, values, levels) for _, colour, values in plot.lines)
    grouped = plot.frames_per_point > 1
    note = f'<p class="fine">A point is the mean of {plot.frames_per_point} frames.</p>' if grouped else ""
    return (
        f'<div class="plot" data-plot="{escape(key)}" role="img" aria-label="PSNR in dB of every frame">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{grid}{cuts}{paths}</svg>{labels}'
        f'{_names_below(plot)}<div class="cursor" hidden></div><div class="here" hidden></div>'
        f'<div class="tip" hidden></div></div>{note}'
    )


def legend(results: Results) -> str:
    items = "".join(
        f'<span><span class="swatch" style="background:{colour_of(results, name)}"></span>{escape(title(name))}</span>'
        for name in main_methods(results)
    )
    return f'<div class="legend">{items}</div>'


def _divider(x: float) -> str:
    return f'<line x1="{x:.3f}" x2="{x:.3f}" y1="0" y2="100" stroke-dasharray="3 3"/>'


def _path(colour: str, values: Sequence[float], levels: Sequence[float]) -> str:
    """The line through the finite values; it breaks at the others."""
    points, pen = [], "M"
    for i, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        x, y = 100 * (i + 0.5) / len(values), 100 - axes.percent(value, levels)
        points.append(f"{pen}{x:.3f} {y:.2f}" + ("h.01" if pen == "M" else ""))
        pen = "L"
    return f'<path d="{"".join(points)}" style="stroke:{colour}"/>'


def _names_below(plot: Plot) -> str:
    """Sequence names under their spans, or their number where there are too many; of one its first and last frame."""
    count, edges = len(plot.points), plot.edges
    if len(edges) == 1:
        first, last = plot.points[0][1], plot.points[-1][1]
        return f'<span class="x first">{escape(first)}</span>' + (
            f'<span class="x last">{escape(last)}</span>' if count > 1 else ""
        )
    if len(edges) > MOST_NAMES:
        return f'<span class="x" style="left:50%">{len(edges)} sequences</span>'
    ends = [i for i, _ in edges[1:]] + [count]
    return "".join(
        f'<span class="x" style="left:{50 * (start + end) / count:.2f}%;max-width:{100 * (end - start) / count:.2f}%">'
        f"{escape(name)}</span>"
        for (start, name), end in zip(edges, ends, strict=True)
    )
