"""Power cuts while a store is built and just after: what was said to be done is there, and nothing is mixed."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.disks import PowerDisk, power_disk
from tests.campaigns.server import Server
from tests.campaigns.trials import DISTURBED, STAGES, Made, Tally

SEED = 20261127
SMALL, FULL = 2, 40
MOST_IDLE_SECONDS = 1.0


def cut(
    made: Made,
    server: Server,
    disk: PowerDisk,
    stage: str,
    seconds: float | None,
    idle: float,
    what: str,
    off: Sequence[str] = (),
) -> Tally:
    """Cut the power `seconds` after a stage was started, or `idle` seconds after it said that it was done."""
    shutil.rmtree(disk.place / "store", ignore_errors=True)
    store = made.copy(STAGES[stage].before, disk.place / "store")
    disk.sync()
    child = server.start(*made.words(stage, store), off=off)
    if seconds is None:
        ended = child.wait()
        time.sleep(idle)
        disk.cut_power()
    else:
        time.sleep(seconds)
        disk.cut_power()
        child.kill()
        ended = child.wait()
    disk.start_again()
    tally = Tally(landed=int(ended.code != 0))
    tally.add(made, server, stage, store, ended, what)
    return tally


def cut_often(
    made: Made, server: Server, folder: Path, stage: str, count: int, off: Sequence[str] = ()
) -> Tally:
    """Cut the power half of the times at a random instant, half of the times up to a second after the end."""
    tally, rng = Tally(), np.random.default_rng([SEED, sorted(STAGES).index(stage)])
    with power_disk(folder) as disk:
        store = made.copy(STAGES[stage].before, disk.place / "store")
        lasts = server.run(*made.words(stage, store)).seconds
        for number in range(count):
            share = rng.random()
            seconds = share * lasts if number % 2 else None
            idle = 0.0 if number % 4 else share * MOST_IDLE_SECONDS
            tally += cut(made, server, disk, stage, seconds, idle, f"cut {number} at {share:.3f}", off)
    return tally


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", DISTURBED)
def test_power_cuts_lose_nothing(stage, count, made, server, tmp_path, campaign):
    tally = cut_often(made, server, tmp_path, stage, count)
    campaign(f"power cut in {stage}", **tally.figures, seed=SEED)
    assert (tally.lost, tally.silent, tally.resumed) == (0, 0, count), tally.faults
    assert tally.acknowledged >= count // 2


def test_power_cuts_without_fsync_are_found(made, server, tmp_path, campaign):
    """Teeth: without fsync, the same campaign finds builds that were said to be done and are not there."""
    tally = cut_often(made, server, tmp_path, "re-voxelize", 2 * SMALL, off=("fsync",))
    campaign("power cut in re-voxelize, no fsync", **tally.figures, seed=SEED)
    assert tally.lost + tally.silent > 0
