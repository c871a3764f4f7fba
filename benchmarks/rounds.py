"""Timing variants of one job against each other: interleaved, in shuffled rounds, by process CPU time."""

import random
import statistics
import time
from collections.abc import Callable, Mapping


def medians(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    *,
    clock: Callable[[], float] = time.process_time,
    tidy: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each variant over `rounds` rounds, after one that does not count.

    Args:
        clock: CPU time of the process, or another one.
        tidy: run after each variant, and not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            started = clock()
            variants[name]()
            if number:
                seconds[name].append(clock() - started)
            tidy()
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(title: str, seconds: Mapping[str, float], ours: str) -> str:
    """A Markdown table: what each variant costs, relative to ours."""
    lines = [f"### {title}", "", "| variant | CPU time over ours |", "| --- | ---: |"]
    lines += [f"| {name} | {value / seconds[ours]:.2f} |" for name, value in seconds.items()]
    return "\n".join(lines) + "\n"
