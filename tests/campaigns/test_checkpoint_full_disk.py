"""Disks that fill up while a run trains: it goes on without a checkpoint, or ends with a clear error; none is lost."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from model.training.same_run import compare_runs
from tests.campaigns.disks import enlarge, memory_disk
from tests.campaigns.trainings import Trainings, state_of, wait_for

SMALL, FULL = 2, 20
STEPS = 8
ENOUGH_KILOBYTES = 64 << 10
OFTEN = ("checkpoint_every=2", "validate_every=4")


@dataclass
class Figures:
    """What became of trainings on small disks.

    Attributes:
        n: sizes; ended: of these, on which the training came to its end.
        went_on: trainings that went on though a checkpoint could not be written.
        equal: trainings that, gone on with when there was space, ended as on a large disk, bit for bit.
    """

    n: int = 0
    ended: int = 0
    went_on: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def line(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "faults"}


@pytest.fixture(scope="module")
def whole(trainings, tmp_path_factory) -> Path:
    """A run on a large disk."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ended = trainings.run(run, *OFTEN)
    assert ended.code == 0, ended
    return run


def fill(trainings: Trainings, whole: Path, place: Path, sizes: list[int]) -> Figures:
    """Train on disks of these sizes, then make space and go on."""
    figures = Figures()
    for size in sizes:
        with memory_disk(place, size):
            run = place / "run"
            ended = trainings.run(run, *OFTEN)
            figures.n += 1
            figures.ended += ended.code == 0
            figures.went_on += "training goes on" in ended.err
            if ended.code and not (ended.refused and "No space left" in ended.err):
                figures.faults.append(f"on {size} KiB: {ended}")
            saved = list(run.glob("checkpoints/step_*"))
            before = state_of(run)[0] if saved else 0
            enlarge(place, ENOUGH_KILOBYTES)
            again = trainings.run(run, *OFTEN)
            if again.code or state_of(run) != state_of(whole):
                figures.faults.append(f"on {size} KiB, gone on with from step {before}: {again}")
            else:
                figures.equal += 1
    return figures


@pytest.fixture
def some_sizes(whole: Path) -> Callable[[int], list[int]]:
    """Sizes from hardly anything to more than all that a run writes, in KiB: checkpoints are most of it."""
    checkpoint = (whole / "checkpoints" / "last.safetensors").stat().st_size >> 10
    return lambda count: [int(size) for size in np.linspace(16, 5 * checkpoint, count)]


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_full_disks_cost_no_checkpoint(count, trainings, whole, some_sizes, tmp_path, campaign):
    figures = fill(trainings, whole, tmp_path / "disk", some_sizes(count))
    campaign("full disk in train", **figures.line)
    assert (figures.equal, figures.faults) == (count, [])
    assert 0 < figures.ended < count


def test_goes_on_when_a_checkpoint_does_not_fit_and_saves_the_next(trainings, whole, tmp_path, caplog):
    """The disk is full for a while: a checkpoint is left out, which is said; the run ends as on a large disk."""
    caplog.set_level(logging.CRITICAL)
    place = tmp_path / "disk"
    with memory_disk(place, ENOUGH_KILOBYTES):
        run, ballast = place / "run", place / "ballast"
        child = trainings.start(run, *OFTEN)
        wait_for(run, 3, child)
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        wait_for(run, 6, child)
        ballast.unlink()
        ended = child.wait()
        assert ended.code == 0 and "CANNOT BE WRITTEN" in ended.err and "training goes on" in ended.err, ended
        assert all(part.equal for part in compare_runs(whole, run, STEPS))
