"""How methods, metrics and numbers are written in the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.evaluation.methods import BLURRY, RESTORED, SHARP, SPIKE_ONLY, SPIKES
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
UNDER_TEST, NETWORKS, THRESHOLDS, ABLATIONS, BASELINES = (
    "Network under test",
    "Other networks",
    "Other spike thresholds",
    "Altered input",
    "Baselines",
)


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is written.

    Attributes:
        digits: behind the point; None: four that count.
        direction: 1: the higher the better, -1: the lower, 0: it does not say.
    """

    title: str
    unit: str = ""
    digits: int | None = None
    direction: int = 0

    def text(self, value: float) -> str:
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return (f"{value:.4g}" if self.digits is None else f"{value:.{self.digits}f}").replace("-", "−")

    def best(self, values: Sequence[float]) -> float:
        """The best of some values; NaN where none of them is."""
        known = [value * self.direction for value in values if not math.isnan(value)]
        return max(known) * self.direction if known and self.direction else math.nan

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


_METRICS = {
    "psnr": Metric("PSNR", "dB", 2, 1),
    "ssim": Metric("SSIM", "", 4, 1),
    "lpips": Metric("LPIPS", "", 4, -1),
}


def metric(name: str) -> Metric:
    """How to write a metric: `psnr_y` and `reblur_psnr` as a PSNR, unknown ones by their name."""
    words = name.split("_")
    known = next((_METRICS[word] for word in words if word in _METRICS), Metric(""))
    shown = (_METRICS[w].title if w in _METRICS else w.upper() if len(w) == 1 else w for w in words)
    return Metric(" ".join(shown), known.unit, known.digits, known.direction)


PSNR = metric("psnr")


def title(method: str) -> str:
    return TITLES.get(method, method)


def explained(results: Results, method: str) -> str:
    """What a method is, in a few words; empty where its group says it all."""
    return EXPLAINED.get(method, "") or {NETWORKS: "for comparison"}.get(group_of(results, method), "")


def group_of(results: Results, method: str) -> str:
    """What kind of method it is."""
    if method == RESTORED:
        return UNDER_TEST
    if method in (SPIKE_ONLY, BLURRY):
        return BASELINES
    if method in results.provenance.get("networks", {}):
        return NETWORKS
    return THRESHOLDS if "threshold" in method else ABLATIONS


def grouped(results: Results) -> dict[str, list[str]]:
    """The methods of each group that has any, both in the order of the tables."""
    order = (UNDER_TEST, NETWORKS, ABLATIONS, THRESHOLDS, BASELINES)
    groups = {group: [m for m in results.methods if group_of(results, m) == group] for group in order}
    return {group: methods for group, methods in groups.items() if methods}


def main_methods(results: Results) -> tuple[str, ...]:
    """Those that see the data as it is: networks and baselines."""
    return tuple(m for m in results.methods if group_of(results, m) not in (ABLATIONS, THRESHOLDS))


def gain_over(value: float, reference: float) -> float | None:
    """How much better, or None where one of them is not a finite number."""
    gain = value - reference
    return gain if math.isfinite(gain) else None


def signed(gain: float | None, digits: int = 2) -> str:
    return "–" if gain is None else f"{gain:+.{digits}f}".replace("-", "−")


def toned(gain: float | None) -> str:
    """The class of a cell that holds a gain: green, red or neither."""
    return "" if not gain else "gain" if gain > 0 else "loss"


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def colour_of(results: Results, method: str) -> str:
    """The CSS variable of a method: accent for `restored`, grey and orange for the fixed baselines."""
    fixed = {RESTORED: 0, SPIKE_ONLY: 1, BLURRY: 2}
    others = [name for name in results.methods if name not in fixed]
    number = fixed[method] if method in fixed else 3 + others.index(method) % (COLOURS - 3)
    return f"var(--m{number})"


def swatch(results: Results, method: str) -> str:
    return f'<span class="swatch" style="background:{colour_of(results, method)}"></span>'
