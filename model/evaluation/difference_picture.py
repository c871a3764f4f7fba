"""A comparison as one picture: the difference of every sequence with its interval, and of all frames."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.evaluation.comparison import Comparison, told
from model.training.curves import GREEN, GRID, INK, RED, SOFT, STYLE
from pipeline.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 12.0, 110
MOST_SEQUENCES = 40
"""Of many sequences those that differ most are drawn."""
LONGEST_NAME = 28
_EDGE = 0.995
"""Part of the frames that the histogram shows at least; the rest is counted at its ends."""


def draw_comparison(comparison: Comparison, picture: Path) -> None:
    """Draw a comparison into a PNG, which appears whole."""
    # Half a second to load, which only this needs; its object interface has no state to share with anybody.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(len(comparison.compared), MOST_SEQUENCES) + 1
    with rc_context(STYLE | {"axes.grid.axis": "x"}):
        height = max(5.2, 2.4 + 0.34 * rows)
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            *(1, 2),
            left=0.2,
            right=0.97,
            top=1 - 1.35 / height,
            bottom=0.8 / height,
            wspace=0.14,
            width_ratios=(1.5, 1),
        )
        _titles(figure, comparison, height)
        _draw_sequences(figure.add_subplot(grid[0, 0]), comparison)
        _draw_frames(figure.add_subplot(grid[0, 1]), comparison)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    write_atomic(picture, file.getvalue())


def _titles(figure: "Figure", comparison: Comparison, height: float) -> None:
    verdict = "B is " * (comparison.verdict in ("better", "worse")) + comparison.verdict
    first = f"{verdict}: {told(comparison.difference, comparison.unit)} {comparison.metric}"
    shares = comparison.shares
    said = [
        f"{comparison.differences.size} frames of {len(comparison.sequences)} sequences",
        f"{comparison.b.protocol}, {comparison.b.split} split",
        f"B better in {shares['won']:.0%} of frames, worse in {shares['lost']:.0%}",
    ]
    figure.text(0.02, 1 - 0.45 / height, first, fontsize=18, fontweight="bold", parse_math=False)
    figure.text(0.02, 1 - 0.8 / height, "   ·   ".join(said), fontsize=13, color=SOFT, parse_math=False)


def _draw_sequences(axes: "Axes", comparison: Comparison) -> None:
    """A line a sequence, the best for B on top, and all of them together below."""
    found = sorted(
        zip(comparison.compared, comparison.estimates.per_sequence, strict=True),
        key=lambda one: -comparison.sign * one[1].mean,
    )
    left_out = len(found) - MOST_SEQUENCES
    if left_out > 0:
        half = MOST_SEQUENCES // 2
        found = found[:half] + found[-half:]
    title = f"Of each sequence, {comparison.metric}{comparison.unit and ' in' + comparison.unit}"
    axes.set_title(title + (f" ({left_out} in the middle left out)" if left_out > 0 else ""))
    rows = [*found, ("all", comparison.difference)]
    places = [*range(len(found)), len(found) + 0.4]
    for place, (name, one) in zip(places, rows, strict=True):
        colour = _colour(comparison, one.mean) if one.is_above_zero or one.is_below_zero else SOFT
        whole = name == "all" and place == places[-1]
        if one.is_known:
            axes.plot([one.low, one.high], [place, place], color=colour, linewidth=4 if whole else 2.2)
        axes.plot(one.mean, place, "D" if whole else "o", color=colour, markersize=9 if whole else 7)
    names = [name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :] for name, _ in rows]
    axes.set_yticks(places, names, fontsize=11, parse_math=False)
    axes.set_ylim(places[-1] + 0.7, -0.7)
    axes.axvline(0, color=INK, linewidth=1.1, zorder=1)
    axes.axhline(places[-1] - 0.7, color=GRID, linewidth=1.2)
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel("B − A, with 95 % intervals")


def _draw_frames(axes: "Axes", comparison: Comparison) -> None:
    differences = comparison.differences
    finite = differences[np.isfinite(differences)]
    low, high = np.quantile(finite, ((1 - _EDGE) / 2, (1 + _EDGE) / 2))
    edge = max(abs(low), abs(high), 1e-9)
    bins = np.linspace(-edge, edge, 2 * max(min(int(len(finite) ** 0.5), 30), 4) + 1)
    counts, _ = np.histogram(np.clip(finite, -edge, edge), bins)
    middles = (bins[1:] + bins[:-1]) / 2
    colours = [_colour(comparison, middle) for middle in middles]
    axes.bar(middles, counts, width=0.92 * (bins[1] - bins[0]), color=colours, alpha=0.75)
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.set_title("Of all frames")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    beyond = int((np.abs(finite) > edge).sum())
    infinite = len(differences) - len(finite)
    told_apart = [f"{beyond} beyond" * (beyond > 0), f"{infinite} infinite" * (infinite > 0)]
    axes.set_xlabel("B − A" + "".join(f", {what}" for what in told_apart if what))


def _colour(comparison: Comparison, difference: float) -> str:
    return GREEN if comparison.sign * difference > 0 else RED
