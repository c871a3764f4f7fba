"""What a network makes of its spikes: the same network with other spikes, and what that changes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from model.evaluation.methods import RESTORED
from model.evaluation.protocols import Protocol
from model.evaluation.scores import FrameScore, finite_mean, finite_or_none
from pipeline.ablations import Shuffle, Zero

IGNORED = 0.05
"""Where no frame's first metric changes by so many dB without the right spikes, the network ignores them."""
TELLING = (Zero.name, Shuffle.name)
"""Changes that leave nothing of the right spikes; to survive others is no sign of ignoring them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How the scores of a row differ from those of `restored`, over the frames that have both.

    Attributes:
        values: by metric, the mean of (row - restored); infinite differences are left out, NaN without frames.
        largest: absolute value of the difference in the first metric.
    """

    method: str
    frames: int
    values: Mapping[str, float]
    largest: float

    def to_json(self) -> dict[str, Any]:
        return {"frames": self.frames} | {name: finite_or_none(value) for name, value in self.values.items()}


def differences(
    protocol: Protocol, methods: Iterable[str], scores: Iterable[FrameScore]
) -> dict[str, Difference]:
    """The difference of each of `methods` to `restored` under one protocol."""
    by_method: dict[str, dict[tuple[str, int], Mapping[str, float]]] = {}
    for score in scores:
        if score.protocol == protocol.name:
            by_method.setdefault(score.method, {})[score.sequence, score.index] = score.values
    restored = by_method.get(RESTORED, {})
    return {method: _difference(protocol, method, by_method.get(method, {}), restored) for method in methods}


def _difference(
    protocol: Protocol,
    method: str,
    values: Mapping[tuple[str, int], Mapping[str, float]],
    restored: Mapping[tuple[str, int], Mapping[str, float]],
) -> Difference:
    both = [(values[place], restored[place]) for place in values if place in restored]
    found = {name: [_minus(a[name], b[name]) for a, b in both] for name in protocol.metrics}
    return Difference(
        method=method,
        frames=len(both),
        values={name: finite_mean(each) for name, each in found.items()},
        largest=max(
            (abs(each) for each in found[protocol.metrics[0]] if not math.isnan(each)), default=math.nan
        ),
    )


def _minus(a: float, b: float) -> float:
    return 0.0 if a == b else a - b  # two infinite ones are equal


def ignores_spikes(found: Mapping[str, Difference]) -> bool | None:
    """Whether the network takes no notice of its spikes; None where nothing that was tried could tell."""
    telling = _telling(found)
    return all(found[name].largest < IGNORED for name in telling) if telling else None


def worth_in_words(protocol: Protocol, found: Mapping[str, Difference]) -> str:
    """One plain sentence about what the spikes are worth; empty where nothing that was tried could tell."""
    metric = protocol.metrics[0]
    unit = metric.upper().replace("_", " ")
    telling = _telling(found)
    if not telling:
        return ""
    if ignores_spikes(found):
        changes = " and ".join(telling)
        return f"The network ignores its spikes: with {changes} no frame's {unit} changes by {IGNORED} dB."
    lost = 0.0 - found[telling[0]].values[metric]
    if not math.isfinite(lost):
        return ""
    if lost < 0:
        return f"The spikes do harm: with {telling[0]} the network gains {-lost:.2f} dB of mean {unit}."
    return f"The spikes are worth {lost:.2f} dB of mean {unit}: so much is lost with {telling[0]}."


def _telling(found: Mapping[str, Difference]) -> list[str]:
    """The changes that leave nothing of the right spikes and have scores to compare."""
    return [name for name in TELLING if name in found and not math.isnan(found[name].largest)]
