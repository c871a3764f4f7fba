"""Measures against each other; `test_protocols` holds them against other implementations."""

import inspect
import math

import pytest

from model.evaluation import measures
from tests.model.evaluation.pairs import candidate, frames, shot

ALL = {
    name: measure
    for name, measure in inspect.getmembers(measures, inspect.isfunction)
    if measure.__module__ == measures.__name__ and not name.startswith("_")
}


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_a_perfect_frame_gets_the_best_value(measure) -> None:
    sharp, _ = frames()
    value = measure(candidate(sharp.double() / 255, before=sharp), shot(sharp, before=sharp))
    assert value == (math.inf if "psnr" in measure.__name__ else pytest.approx(1, abs=1e-12))


@pytest.mark.parametrize("measure", ALL.values(), ids=ALL)
def test_a_worse_frame_gets_a_worse_value(measure) -> None:
    sharp, bad = frames()
    better = (bad + sharp / 255) / 2
    first, second = (measure(candidate(image, sharp), shot(sharp, sharp)) for image in (better, bad))
    assert first > second
