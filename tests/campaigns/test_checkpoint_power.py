"""Power cuts while a run writes checkpoints: those before the last are on disk, whole, and it goes on from them."""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import CheckpointFolder
from model.training.same_run import compare_runs
from pipeline.errors import CheckpointError
from tests.campaigns.disks import PowerDisk, power_disk
from tests.campaigns.trainings import Trainings, last_logged, wait_for

SEED = 20261204
SMALL, FULL = 1, 30
STEPS = 8
MOST_SECONDS = 0.3
OFTEN = ("checkpoint_every=1", "validate_every=4")


@dataclass
class Figures:
    """What was there after power cuts.

    Attributes:
        n: cuts; acknowledged: checkpoints after which the training had gone on.
        lost: cuts after which the newest whole checkpoint was of a step before that.
        equal: trainings that, gone on with, ended as an undisturbed one, with every step in their metrics.
    """

    n: int = 0
    acknowledged: int = 0
    lost: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def line(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "faults"}


@pytest.fixture(scope="module")
def whole(trainings, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ended = trainings.run(run, *OFTEN)
    assert ended.code == 0, ended
    return run


def cut_often(
    trainings: Trainings, whole: Path, folder: Path, count: int, off: Sequence[str] = ()
) -> Figures:
    """Cut the power some time after a step was logged, start again, and go on with the training."""
    figures, rng = Figures(), np.random.default_rng(SEED)
    with power_disk(folder) as disk:
        for number in range(count):
            cut(figures, rng, trainings, whole, disk, f"cut {number}", off)
    return figures


def cut(
    figures: Figures,
    rng: np.random.Generator,
    trainings: Trainings,
    whole: Path,
    disk: PowerDisk,
    what: str,
    off: Sequence[str],
) -> None:
    run = disk.place / "run"
    shutil.rmtree(run, ignore_errors=True)
    disk.sync()
    child = trainings.start(run, *OFTEN, off=off)
    wait_for(run, int(rng.integers(2, STEPS)), child)
    time.sleep(float(rng.random()) * MOST_SECONDS)
    logged = last_logged(run)
    disk.cut_power()
    child.kill()
    child.wait()
    disk.start_again()
    figures.n += 1
    acknowledged = logged - 1  # a step is logged after the checkpoint of the one before is written
    figures.acknowledged += acknowledged
    try:
        found = CheckpointFolder(run / "checkpoints").load_last()
    except CheckpointError as error:
        found = None
        figures.faults.append(f"{what}: {error}")
    if found is None or found.step < acknowledged:
        figures.lost += 1
        figures.faults.append(f"{what}: step {found.step if found else 0} of {acknowledged}")
        return
    again = trainings.run(run, *OFTEN)
    if again.code:
        figures.faults.append(f"{what}: {again}")
        return
    different = [part.part for part in compare_runs(whole, run, STEPS) if not part.equal]
    figures.equal += not different
    figures.faults += [f"{what}: {different}"] if different else []


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_power_cuts_lose_no_checkpoint(count, trainings, whole, tmp_path, campaign):
    figures = cut_often(trainings, whole, tmp_path, count)
    campaign("power cut in train", **figures.line, seed=SEED)
    assert (figures.lost, figures.equal) == (0, count), figures.faults


def test_power_cuts_lose_checkpoints_without_fsync(trainings, whole, tmp_path, campaign, caplog):
    """Teeth: without fsync, the same campaign finds checkpoints that are not there any more."""
    caplog.set_level(logging.CRITICAL)
    figures = cut_often(trainings, whole, tmp_path, SMALL, off=("fsync",))
    campaign("power cut in train, no fsync", **figures.line, seed=SEED)
    assert figures.lost > 0
