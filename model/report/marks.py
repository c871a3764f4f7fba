"""How methods and numbers are written in the report."""

import math

from model.evaluation.judge import BLURRY, RESTORED, SHARP, SPIKE_ONLY, SPIKES
from model.evaluation.results import Results

COLOURS = 6
TITLES = {
    RESTORED: "Restored",
    BLURRY: "Blurry input",
    SPIKE_ONLY: "Spike only",
    SHARP: "Sharp",
    SPIKES: "Spikes",
    "rgb_only": "RGB only",
}
EXPLAINED = {
    RESTORED: "the network under test",
    BLURRY: "what it was given",
    SPIKE_ONLY: "physics, nothing learned",
}


def title(method: str) -> str:
    return TITLES.get(method, method)


def decibels(value: float, digits: int = 2) -> str:
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def gain_over(value: float, reference: float) -> float | None:
    """How much better, or None where one of them is not a finite number."""
    gain = value - reference
    return gain if math.isfinite(gain) else None


def signed(gain: float | None) -> str:
    return "–" if gain is None else f"{gain:+.2f}".replace("-", "−")


def colour_of(results: Results, method: str) -> str:
    """The CSS variable of a method: accent for `restored`, grey and orange for the fixed baselines."""
    fixed = {RESTORED: 0, SPIKE_ONLY: 1, BLURRY: 2}
    others = [name for name in results.methods if name not in fixed]
    number = fixed[method] if method in fixed else 3 + others.index(method) % (COLOURS - 3)
    return f"var(--m{number})"


def swatch(results: Results, method: str) -> str:
    return f'<span class="swatch" style="background:{colour_of(results, method)}"></span>'
