"""`kill -9` at random instants of building a store: nothing is lost, nothing mixed, and it can be resumed."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.server import Server
from tests.campaigns.trials import DISTURBED, STAGES, Made, Tally

SEED = 20261125
SMALL, FULL = 5, 200
MOST_TRIALS = 4


def kill_at_random(
    made: Made,
    server: Server,
    stage: str,
    count: int,
    tries: Callable[[], Path],
    off: Sequence[str] = (),
) -> Tally:
    """Kill a stage `count` times, at instants drawn from all of its time, and look at what is left each time.

    Where it is done before it is killed, because other processes left it more time, that is one more trial.
    """
    tally, rng = Tally(), np.random.default_rng([SEED, sorted(STAGES).index(stage)])
    lasts = np.median([undisturbed(made, server, stage, tries(), off) for _ in range(3)])
    while tally.landed < count and tally.n < MOST_TRIALS * count:
        store = made.copy(STAGES[stage].before, tries())
        child = server.start(*made.words(stage, store), off=off)
        after = float(rng.random() * lasts)
        time.sleep(after)
        child.kill()
        ended = child.wait()
        tally.landed += ended.code == -9
        tally.add(made, server, stage, store, ended, f"killed after {after:.4f} of {lasts:.4f} s")
    return tally


def undisturbed(made: Made, server: Server, stage: str, store: Path, off: Sequence[str]) -> float:
    """Seconds that a stage takes."""
    ended = server.run(*made.words(stage, made.copy(STAGES[stage].before, store)), off=off)
    assert ended.code == 0, ended
    return ended.seconds


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", DISTURBED)
def test_kills_lose_nothing(stage, count, made, server, tries, campaign):
    tally = kill_at_random(made, server, stage, count, tries)
    campaign(f"kill -9 in {stage}", **tally.figures, seed=SEED)
    assert (tally.lost, tally.silent, tally.resumed) == (0, 0, tally.n), tally.faults
    assert tally.landed == count


def test_kills_without_generations_are_found(made, server, tries, campaign):
    """Teeth: where the new is built in the place of the old, the same campaign finds stores that are lost."""
    tally = kill_at_random(made, server, "re-ingest", SMALL, tries, off=("generations",))
    campaign("kill -9 in re-ingest, no generations", **tally.figures, seed=SEED)
    assert tally.lost + tally.silent > 0
