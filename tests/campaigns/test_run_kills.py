"""Trainings killed with -9 at random instants, and gone on with: what they learn is what they would have learned."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from model.training.same_run import compare_runs
from tests.campaigns.trainings import Trainings, wait_for

SEED = 20261201
STEPS, KILLS, SAVED = 8, 3, 4
"""Of a training; when the first step is logged that comes after a checkpoint."""
SMALL, FULL = 1, 20
PRECISIONS = ("fp32", "bf16", "fp16")
MOST_SECONDS = 0.1
"""After a step, until the kill: some steps later, or in the midst of a checkpoint or a validation."""


@dataclass
class Figures:
    """What became of killed trainings.

    Attributes:
        n: trainings; kills: of their processes, in all.
        equal: trainings of which every part is that of the undisturbed one, bit for bit.
    """

    n: int = 0
    kills: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)


def kill_and_compare(
    trainings: Trainings,
    count: int,
    place: Callable[[], Path],
    kills: int = KILLS,
    earliest: int = 0,
    off: Sequence[str] = (),
) -> Figures:
    """Train twice each time: undisturbed, and killed; with 0 and 2 threads that read clips in turn.

    Args:
        kills: of each training.
        earliest: step from which on one may be killed.
    """
    figures, rng = Figures(), np.random.default_rng(SEED)
    for number in range(count):
        folder = place()
        how = (f"seed={number}", f"parallel.precision={PRECISIONS[number % 3]}")
        threads = (0, 2) if number % 2 else (2, 0)
        whole = trainings.run(folder / "whole", *how, f"workers={threads[0]}", off=off)
        assert whole.code == 0, whole
        killed = folder / "killed"
        targets = np.sort(rng.choice(np.arange(earliest, STEPS - 1), kills, replace=False))
        for kill, step in enumerate(targets):
            child = trainings.start(killed, *how, f"workers={threads[kill % 2]}", off=off)
            wait_for(killed, int(step), child)
            time.sleep(float(rng.random()) * MOST_SECONDS)
            child.kill()
            figures.kills += child.wait().code == -9
        ended = trainings.run(killed, *how, f"workers={threads[kills % 2]}", off=off)
        assert ended.code == 0, ended
        different = [part.part for part in compare_runs(folder / "whole", killed, STEPS) if not part.equal]
        figures.n += 1
        figures.equal += not different
        figures.faults += [f"training {number}, killed at {targets}: {different}"] if different else []
    return figures


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_killed_trainings_end_with_the_weights_of_undisturbed_ones(count, trainings, tries, campaign):
    figures = kill_and_compare(trainings, count, tries)
    campaign("kill -9 in train", n=count, kills=figures.kills, equal=figures.equal, seed=SEED)
    assert figures.equal == count, figures.faults
    assert figures.kills >= 0.9 * KILLS * count  # on a machine with other work, one may come too late


@pytest.mark.parametrize("protection", ["step seeds", pytest.param("step order", marks=pytest.mark.slow)])
def test_killed_trainings_differ_without(protection, trainings, tries, campaign):
    """Teeth: with random numbers or an order that live in the process only, the same campaign finds other weights."""
    figures = kill_and_compare(trainings, 1, tries, kills=1, earliest=SAVED, off=(protection,))
    campaign(f"kill -9 in train, no {protection}", n=1, kills=figures.kills, equal=figures.equal, seed=SEED)
    assert figures.equal == 0
