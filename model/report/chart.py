"""The plot of the report: PSNR of every frame, as SVG with labels in HTML, so that text keeps its size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from model.evaluation.judge import RESTORED
from model.evaluation.results import Results
from model.evaluation.scores import mean
from model.report.marks import colour_of, title

MAX_POINTS = 1200
"""Of the plot along its axis; longer tests are averaged over neighbouring frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """PSNR over the frames of all sequences, one after the other.

    Attributes:
        names: of the points along the axis.
        lines: method, colour and one value a point, in drawing order: the last is on top. Infinite where a frame
            is identical to the sharp one.
        edges: first point of each sequence, and its name.
        frames_per_point: how many frames a point is the mean of.
    """

    names: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[float, ...]], ...]
    edges: tuple[tuple[int, str], ...]
    frames_per_point: int

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
        return {"names": self.names, "lines": lines}


def plot_of(results: Results) -> Plot | None:
    series = {name: [s for s in results.scores_by() if s.method == name] for name in results.methods}
    restored = series[RESTORED]
    if not restored:
        return None
    size = math.ceil(len(restored) / MAX_POINTS)
    groups: list[list[int]] = []
    for i, score in enumerate(restored):
        if not groups or len(groups[-1]) == size or restored[groups[-1][0]].sequence != score.sequence:
            groups.append([])
        groups[-1].append(i)
    firsts = [restored[group[0]] for group in groups]
    starts = [i for i, s in enumerate(firsts) if i == 0 or firsts[i - 1].sequence != s.sequence]
    lines = (
        (
            title(name),
            colour_of(results, name),
            tuple(mean([scores[i].psnr for i in group]) for group in groups),
        )
        for name, scores in reversed(series.items())
    )
    return Plot(
        names=tuple(f"{s.sequence} / {s.frame}" for s in firsts),
        lines=tuple(lines),
        edges=tuple((i, firsts[i].sequence) for i in starts),
        frames_per_point=size,
    )


def chart(plot: Plot | None) -> str:
    finite = [v for _, _, values in plot.lines for v in values if math.isfinite(v)] if plot else []
    if plot is None or not finite:
        return "<p>No frame has a finite PSNR to plot.</p>"
    ticks = _ticks(min(finite), max(finite))
    low, high, count = ticks[0], ticks[-1], len(plot.names)
    grid = "".join(_level(_percent(tick, low, high)) for tick in ticks)
    cuts = "".join(_divider(100 * i / count) for i, _ in plot.edges[1:])
    paths = "".join(_path(colour, values, low, high) for _, colour, values in plot.lines)
    labels = "".join(
        f'<span class="y" style="top:{_percent(tick, low, high):.2f}%">{tick:g}</span>' for tick in ticks
    )
    legend = "".join(
        f'<span><span class="swatch" style="background:{colour}"></span>{escape(label)}</span>'
        for label, colour, _ in reversed(plot.lines)
    )
    grouped = plot.frames_per_point > 1
    note = f'<p class="fine">A point is the mean of {plot.frames_per_point} frames.</p>' if grouped else ""
    return (
        f'<div class="legend">{legend}</div><div class="plot" role="img" aria-label="PSNR in dB of every frame">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{grid}{cuts}{paths}</svg>{labels}'
        f'{_sequence_labels(plot)}<div class="cursor" hidden></div><div class="tip" hidden></div></div>{note}'
    )


def _level(y: float) -> str:
    return f'<line x1="0" x2="100" y1="{y:.2f}" y2="{y:.2f}"/>'


def _divider(x: float) -> str:
    return f'<line x1="{x:.3f}" x2="{x:.3f}" y1="0" y2="100" stroke-dasharray="3 3"/>'


def _percent(value: float, low: float, high: float) -> float:
    return 100 * (high - value) / (high - low)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round levels that enclose [low, high]."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if (high - low) / s <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [step * i for i in range(first, last + 1)]


def _path(colour: str, values: Sequence[float], low: float, high: float) -> str:
    """The line through the finite values; it breaks at the others."""
    points, pen = [], "M"
    for i, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        x, y = 100 * (i + 0.5) / len(values), _percent(value, low, high)
        points.append(f"{pen}{x:.3f} {y:.2f}" + ("h.01" if pen == "M" else ""))
        pen = "L"
    return f'<path d="{"".join(points)}" style="stroke:{colour}"/>'


def _sequence_labels(plot: Plot) -> str:
    """Sequence names under their spans, or their number where there are too many."""
    count = len(plot.names)
    ends = [i for i, _ in plot.edges[1:]] + [count]
    if len(plot.edges) > 12:
        return f'<span class="x" style="left:50%">{len(plot.edges)} sequences</span>'
    return "".join(
        f'<span class="x" style="left:{50 * (start + end) / count:.2f}%;max-width:{100 * (end - start) / count:.2f}%">'
        f"{escape(name)}</span>"
        for (start, name), end in zip(plot.edges, ends, strict=True)
    )
