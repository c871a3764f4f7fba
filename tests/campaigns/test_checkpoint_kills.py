"""One training, killed with -9 over and over while it writes checkpoints: there is always one to go on from."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import CheckpointFolder, read_info
from pipeline.errors import CheckpointError
from tests.campaigns.damage import flip
from tests.campaigns.server import Child
from tests.campaigns.trainings import POLL_SECONDS, Trainings, last_logged, sessions_of, wait_for

SEED = 20261202
SMALL, FULL = 3, 200
MOST_SECONDS, WRITE_SECONDS = 0.3, 0.08
"""From a logged step to the kill, about two steps; and from the beginning of a checkpoint, about all of it."""
ENDLESS = ("steps=1000", "checkpoint_every=1", "validate_every=0")


@dataclass
class Figures:
    """What was there after the kills of a training that saves after every step.

    Attributes:
        n: kills; writing: of these, the ones that left a half-written file.
        loadable: kills after which there was a whole checkpoint, at most one step back.
        damaged: kills that left a newest checkpoint that is not whole.
        hurt: times that a bit of the newest checkpoint was flipped before the training went on.
        announced: of these, the ones in which it said so, and went on from the checkpoint before.
    """

    n: int = 0
    writing: int = 0
    loadable: int = 0
    damaged: int = 0
    hurt: int = 0
    announced: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def line(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "faults"}


def kill_often(
    trainings: Trainings, run: Path, count: int, off: Sequence[str], *, hurting: bool = True
) -> Figures:
    """Kill a training `count` times; after every other kill, if `hurting`, flip a bit of the newest checkpoint."""
    figures, rng = Figures(), np.random.default_rng(SEED)
    folder, start, hurt = CheckpointFolder(run / "checkpoints"), 0, False
    while figures.n < count:
        sessions = sessions_of(run)
        child = trainings.start(run, *ENDLESS, off=off)
        wait_for(run, start + 2, child, sessions)
        share = float(rng.random())
        if figures.n % 4:  # in most trials while a checkpoint is being written, in others anywhere
            wait_for_change(folder.path, child)
        time.sleep(share * (WRITE_SECONDS if figures.n % 4 else MOST_SECONDS))
        child.kill()
        ended = child.wait()
        assert ended.code == -9, ended
        figures.n += 1
        if hurt:
            figures.hurt += 1
            figures.announced += "falling back" in ended.err and f"(step {start})" in ended.err
        start, newest = look(figures, folder, last_logged(run))
        hurt = hurting and figures.n % 2 == 1 and newest is not None and len(folder.steps()) > 1
        if hurt:
            data = newest.read_bytes()
            newest.write_bytes(flip(data, int(rng.integers(8 * len(data)))))
            start = folder.load_last().step
    return figures


def wait_for_change(folder: Path, child: Child) -> None:
    """Wait until there is a new name in a folder."""
    before = set(os.listdir(folder))
    while set(os.listdir(folder)) <= before and child.is_running():
        time.sleep(POLL_SECONDS)


def look(figures: Figures, folder: CheckpointFolder, logged: int) -> tuple[int, Path | None]:
    """Count what a kill after `logged` steps left: the step of the newest whole checkpoint, and its file."""
    figures.writing += bool(list(folder.path.glob(".*.partial")))
    for path in folder.steps()[:1]:
        try:
            read_info(path)
        except CheckpointError as error:
            figures.damaged += 1
            figures.faults.append(str(error))
    try:
        found = folder.load_last()
    except CheckpointError as error:
        figures.faults.append(str(error))
        return 0, None
    if found is None or found.step < logged - 1:
        figures.faults.append(f"kill {figures.n}: {found and found.step} after step {logged}")
    else:
        figures.loadable += 1
    return (found.step, found.path) if found else (0, None)


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_there_is_a_whole_checkpoint_after_every_kill(count, trainings, tmp_path, campaign):
    figures = kill_often(trainings, tmp_path / "run", count, off=("fast disk",))
    campaign("kill -9 while checkpoints are written", **figures.line, seed=SEED)
    assert (figures.loadable, figures.damaged) == (count, 0), figures.faults
    assert figures.announced == figures.hurt >= count // 2 - 1
    assert figures.writing >= count // 10


def test_kills_damage_checkpoints_that_are_written_in_place(trainings, tmp_path, campaign, caplog):
    """Teeth: without the temporary name, the same campaign finds checkpoints that are half written."""
    caplog.set_level(logging.CRITICAL)
    figures = kill_often(trainings, tmp_path / "run", SMALL, off=("rename and fast disk",), hurting=False)
    campaign("kill -9 while checkpoints are written in place", **figures.line, seed=SEED)
    assert figures.damaged > 0


def test_a_second_training_in_the_folder_is_refused_until_the_first_is_dead(trainings, tmp_path):
    run = tmp_path / "run"
    first = trainings.start(run, *ENDLESS)
    wait_for(run, 1, first)
    refused = trainings.run(run, *ENDLESS)
    assert refused.refused and "another process is writing: process" in refused.err
    assert first.is_running()
    first.kill()
    first.wait()
    again = trainings.run(run, f"steps={last_logged(run) + 1}")
    assert again.code == 0, again
