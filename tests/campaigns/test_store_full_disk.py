"""Disks that fill up while a store is built: a clean error, nothing lost, and it goes on once there is space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.disks import enlarge, memory_disk
from tests.campaigns.server import Server
from tests.campaigns.trials import DISTURBED, STAGES, Made, Tally

SMALL, FULL = 3, 20
PAGE = 4096
ENOUGH_KILOBYTES = 64 << 10


def fill(
    made: Made, server: Server, place: Path, stage: str, sizes: Sequence[int], off: Sequence[str] = ()
) -> Tally:
    """Run a stage on disks of these sizes, then make space and run it again."""
    tally = Tally()
    for size in sizes:
        with memory_disk(place, size):
            store = made.copy(STAGES[stage].before, place / "store")
            ended = server.run(*made.words(stage, store), off=off)
            what = f"on {size} KiB"
            tally.landed += ended.code != 0
            if ended.code and not (ended.refused and "No space left" in ended.err):
                tally.faults.append(f"{stage}, {what}: {ended}")
            try:
                while_full = made.aftermath(stage, store).partition(":")[0]
            except AssertionError as mixture:
                while_full = f"mixture: {mixture}"
            enlarge(place, ENOUGH_KILOBYTES)
            tally.add(made, server, stage, store, ended, f"{what}, {while_full} while full")
    return tally


def sizes_for(made: Made, stage: str, count: int) -> list[int]:
    """Sizes from what was there before to three times what the stage writes more: the last is enough."""
    before, after = STAGES[stage].before, STAGES[stage].after
    trees = made.trees[after], made.trees.get(before, {})
    written = sum(pages(len(data)) for name, data in trees[0].items() if data and trees[1].get(name) != data)
    least = sum(pages(len(data)) for data in trees[1].values() if data)
    return [(PAGE * int(size)) >> 10 for size in np.linspace(least + 1, least + 3 * written, count)]


def pages(size: int) -> int:
    """A file in memory takes whole pages."""
    return -(-size // PAGE)


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", DISTURBED)
def test_full_disks_lose_nothing(stage, count, made, server, tmp_path, campaign):
    tally = fill(made, server, tmp_path / "disk", stage, sizes_for(made, stage, count))
    campaign(f"full disk in {stage}", **tally.figures)
    assert (tally.lost, tally.silent, tally.resumed, tally.faults) == (0, 0, count, [])
    assert tally.landed >= count // 3 and tally.acknowledged >= 1


def test_full_disks_without_generations_are_found(made, server, tmp_path, campaign):
    """Teeth: where the new is built in the place of the old, the same campaign finds stores that are lost."""
    (least,) = sizes_for(made, "re-ingest", 1)
    sizes = [least + number * (PAGE >> 10) for number in range(0, 10 * SMALL, 5)]
    tally = fill(made, server, tmp_path / "disk", "re-ingest", sizes, off=("generations",))
    campaign("full disk in re-ingest, no generations", **tally.figures)
    assert tally.lost + tally.silent > 0
