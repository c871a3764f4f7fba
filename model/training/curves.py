"""The curves of a run as one picture, to be read on a phone as well as on a wall."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.training.metrics_file import Metrics, read_metrics
from pipeline.errors import TrainingError
from pipeline.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT, DPI = 10.8, 12.4, 110
INK, SOFT, GRID = "#1c1f26", "#6b7280", "#e8e9ec"
BLUE, GREEN, ORANGE, RED = "#2f62b5", "#1f8a5b", "#d9822b", "#c0392b"
FEW_POINTS = 40
"""Up to so many, each is marked."""
STYLE = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": SOFT,
    "lines.solid_capstyle": "round",
}


def draw_run(run: Path, picture: Path) -> None:
    """Draw what `metrics.jsonl` and `run.json` of a run say into a PNG, which appears whole.

    Raises:
        TrainingError: no step was logged yet.
        OSError: the files cannot be read, or the picture not written.
    """
    metrics = read_metrics(run / "metrics.jsonl")
    if not metrics.of_steps():
        raise TrainingError(f"{run}: no step was logged yet", "wait for the first line of metrics.jsonl")
    # Half a second to load, which only this needs; its object interface has no state to share with anybody.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, run.resolve().name, metrics, resumed_at(run))
        file = io.BytesIO()
        figure.savefig(file, format="png")
    write_atomic(picture, file.getvalue())


def resumed_at(run: Path) -> list[int]:
    """The steps after which a run was resumed, as far as its `run.json` can be read."""
    try:
        sessions = json.loads((run / "run.json").read_bytes())["sessions"]
        return [int(session["from_step"]) for session in sessions[1:]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def smooth(values: Floats) -> Floats:
    """A running mean that forgets over about a sixtieth of the values, and at least a few of them.

    What is not finite takes no part.
    """
    keep = 1 - 1 / max(len(values) / 60, min(len(values) / 4, 6), 1)
    total = weight = 0.0
    means = np.full(len(values), math.nan)
    for i, value in enumerate(values):
        total, weight = total * keep, weight * keep
        if math.isfinite(value):
            total, weight = total + value, weight + 1
        if weight:
            means[i] = total / weight
    return means


def _draw(figure: "Figure", name: str, metrics: Metrics, resumed: Sequence[int]) -> None:
    lines, validations = metrics.of_steps(), metrics.of_validations()
    steps = _column(lines, "step")
    grid = figure.add_gridspec(
        3,
        2,
        left=0.1,
        right=0.925,
        top=0.885,
        bottom=0.065,
        hspace=0.42,
        wspace=0.3,
        height_ratios=(1.25, 1, 1),
    )
    loss = figure.add_subplot(grid[0, :])
    quality, rate, gradient, speed = (figure.add_subplot(grid[1 + i // 2, i % 2]) for i in range(4))
    _titles(figure, name, lines, validations)
    _draw_loss(loss, steps, lines)
    _draw_quality(quality, validations)
    _draw_rate(rate, steps, lines)
    _draw_gradient(gradient, steps, lines)
    _draw_speed(speed, steps, lines)
    last = max(line["step"] for line in metrics.lines)
    for axes in (loss, quality, rate, gradient, speed):
        axes.set_xlim(0, last * 1.02)
        axes.xaxis.set_major_formatter(lambda value, position: short(value))
        axes.locator_params(axis="x", nbins=9 if axes is loss else 5)
        for step in resumed:
            axes.axvline(step, color=SOFT, linewidth=1.2, linestyle=(0, (2, 3)), zorder=1)
    for axes in (gradient, speed):
        axes.set_xlabel("step")
    if resumed:
        loss.text(
            *(1, 1.03, f"dotted: resumed at step {', '.join(map(short, resumed[-4:]))}"),
            transform=loss.transAxes,
            ha="right",
            fontsize=12,
            color=SOFT,
        )


def _titles(
    figure: "Figure", name: str, lines: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]
) -> None:
    last = lines[-1]
    said = [f"step {last['step']:,} of {last.get('steps', last['step']):,}"]
    if _best(validations):
        said.append("best {val_psnr:.2f} dB at step {step:,}".format(**_best(validations)))
    said.append(f"drawn {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    figure.text(0.03, 0.966, name, fontsize=21, fontweight="bold", parse_math=False)
    figure.text(0.03, 0.938, "   ·   ".join(said), fontsize=14, color=SOFT)


def _draw_loss(axes: "Axes", steps: Floats, lines: Sequence[Mapping[str, Any]]) -> None:
    values = _column(lines, "loss")
    axes.set_title("Training loss")
    if np.any(values > 0):
        _log_scale(axes)
    _draw_noisy(axes, steps, values, BLUE)


def _draw_quality(axes: "Axes", validations: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Validation PSNR, dB")
    best = _best(validations)
    if best is None:
        _say_nothing(axes, "not validated yet")
        return
    steps, values = _column(validations, "step"), _column(validations, "val_psnr")
    axes.plot(steps, values, color=GREEN, linewidth=2.2, marker="o" if len(steps) <= FEW_POINTS else None)
    axes.plot(
        best["step"],
        best["val_psnr"],
        "o",
        color=GREEN,
        markersize=13,
        mfc="white",
        mew=2.5,
        zorder=5,
        clip_on=False,
    )
    axes.annotate(
        f"best {best['val_psnr']:.2f}",
        (best["step"], best["val_psnr"]),
        xytext=(0, 13),
        textcoords="offset points",
        color=GREEN,
        fontweight="bold",
        ha="right" if best["step"] > steps[-1] / 2 else "left",
    )
    axes.margins(y=0.2)


def _draw_rate(axes: "Axes", steps: Floats, lines: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Learning rate")
    axes.plot(steps, _column(lines, "lr"), color=INK, linewidth=2.2)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, position: scientific(value))


def _draw_gradient(axes: "Axes", steps: Floats, lines: Sequence[Mapping[str, Any]]) -> None:
    values = _column(lines, "grad_norm")
    axes.set_title("Gradient norm")
    if np.any(values > 0):
        _log_scale(axes)
    _draw_noisy(axes, steps, values, BLUE)
    left_out = _column(lines, "skipped")
    more = np.flatnonzero(np.diff(left_out, prepend=0) > 0)
    if len(more):
        total = int(np.clip(np.diff(left_out, prepend=0), 0, None).sum())
        label = f"▲ {total} step{'s' * (total > 1)} left out"
        axes.set_title(label, loc="right", color=RED, fontsize=12, fontweight="normal")
        across = axes.get_xaxis_transform()
        axes.plot(steps[more], np.full(len(more), 0.03), "^", color=RED, markersize=9, transform=across)


def _draw_speed(axes: "Axes", steps: Floats, lines: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Clips a second", color=BLUE)
    values = _column(lines, "samples_per_s")
    if not np.isfinite(values).any():  # of a run that did not write them yet
        values = _column(lines, "steps_per_s")
        axes.set_title("Steps a second", color=BLUE)
    _draw_noisy(axes, steps, values, BLUE)
    axes.set_ylim(0, 1.25 * np.nanmax(values, initial=1e-9))
    waiting = axes.twinx()
    waiting.set_ylim(0, 1)
    waiting.grid(visible=False)
    waiting.fill_between(steps, _column(lines, "data_share"), color=ORANGE, alpha=0.35, linewidth=0)
    waiting.set_title("waiting for data", loc="right", color=ORANGE, fontsize=12, fontweight="normal")
    waiting.yaxis.set_major_formatter(lambda value, position: f"{value:.0%}")
    waiting.tick_params(axis="y", labelcolor=ORANGE, color=GRID)


def _draw_noisy(axes: "Axes", steps: Floats, values: Floats, colour: str) -> None:
    """Each value pale, and their running mean."""
    few = len(steps) <= FEW_POINTS
    axes.plot(
        steps, values, color=colour, alpha=0.35, linewidth=1.1, marker="o" if few else None, markersize=4
    )
    axes.plot(steps, smooth(values), color=colour, linewidth=2.4)


def _log_scale(axes: "Axes") -> None:
    """Powers of ten in plain numbers, and what is between them where there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.3g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def _say_nothing(axes: "Axes", why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=SOFT)
    axes.set_yticks([])


def _best(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    finite = [line for line in validations if line["val_psnr"] is not None]
    return max(finite, key=lambda line: line["val_psnr"], default=None)


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """One value a line; NaN where there is none."""
    return np.array([math.nan if line.get(key) is None else line[key] for line in lines], np.float64)


def short(value: float) -> str:
    """A number of steps in few characters: 450, 1.5k, 20k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def scientific(value: float) -> str:
    """A small number in few characters: 2e-4."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
