"""Round levels, and where values lie between them: what all plots of the report share."""

import math
from collections.abc import Sequence

_STEPS = tuple(mantissa * 10**power for power in range(-3, 4) for mantissa in (1, 2, 5))


def round_levels(low: float, high: float, most: int = 5, smallest: float = 0.5) -> list[float]:
    """A few round levels that enclose [low, high]: at most `most` steps, or one more where they do not begin in line.

    Args:
        smallest: step.
    """
    step = next((s for s in _STEPS if s >= smallest and (high - low) / s <= most), _STEPS[-1])
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(step * i, 6) for i in range(first, last + 1)]


def percent(value: float, levels: Sequence[float]) -> float:
    """Where a value lies between the first level (0) and the last (100)."""
    return 100 * (value - levels[0]) / (levels[-1] - levels[0])


def rows(levels: Sequence[float]) -> tuple[str, str]:
    """Horizontal lines of an SVG of 100 x 100, and their labels in HTML."""
    heights = [(level, 100 - percent(level, levels)) for level in levels]
    lines = "".join(f'<line x1="0" x2="100" y1="{y:.2f}" y2="{y:.2f}"/>' for _, y in heights)
    return lines, "".join(
        f'<span class="y" style="top:{y:.2f}%">{written(level)}</span>' for level, y in heights
    )


def columns(levels: Sequence[float]) -> tuple[str, str]:
    """Vertical lines of an SVG of 100 x 100, and their labels in HTML."""
    places = [(level, percent(level, levels)) for level in levels]
    lines = "".join(f'<line x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="100"/>' for _, x in places)
    return lines, "".join(
        f'<span class="x" style="left:{x:.2f}%">{written(level)}</span>' for level, x in places
    )


def written(level: float) -> str:
    return f"{level:g}".replace("-", "−")
