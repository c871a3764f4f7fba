"""A curve in one line of text."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"


def sparkline(values: Sequence[float], width: int, *, levels: str = BLOCKS) -> str:
    """The values from left to right, low to high; more than `width` are averaged, one that is not finite is a space.

    Args:
        levels: the characters, from the lowest.
    """
    count = min(len(values), width)
    groups = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [_mean(group) for group in groups]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = high - low or 1.0
    top = len(levels) - 1
    return "".join(levels[round((mean - low) / span * top)] if math.isfinite(mean) else " " for mean in means)


def levels_for(encoding: str | None) -> str:
    """What a terminal or a file of that encoding can show."""
    return BLOCKS if (encoding or "").lower().replace("-", "").startswith("utf") else ASCII


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
