"""System calls that fail, or in which the process dies, while a store is built: each K-th of a kind in turn.

`strace` counts and injects. It is attached to a child that waits for it; the child works in one thread, so that the
K-th call is the same one each time.
"""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.server import Ended, Server
from tests.campaigns.trials import DISTURBED, STAGES, Made, Tally

SEED = 20261126
SMALL, EVERY = 2, 0
RENAMES = "rename,renameat,renameat2"
WRITES = "write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,fallocate,ftruncate"
FAULTS = {
    "killed in a rename": (RENAMES, "signal=KILL"),
    "killed in a fsync": ("fsync,fdatasync", "signal=KILL"),
    "killed in an unlink": ("unlink,unlinkat,rmdir", "signal=KILL"),
    "killed in a mkdir": ("mkdir,mkdirat", "signal=KILL"),
    "killed in a write": (WRITES, "signal=KILL"),
    "no space left for a write": (WRITES, "error=ENOSPC"),
    "no space left for a mkdir": ("mkdir,mkdirat", "error=ENOSPC"),
    "a fsync that fails": ("fsync,fdatasync", "error=EIO"),
    "a rename that fails": (RENAMES, "error=EIO"),
}
NEVER = 65535

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None or os.geteuid() != 0, reason="needs strace, and root to attach it"
)


@dataclass(frozen=True)
class Disturbed:
    """A command in which a call failed.

    Attributes:
        calls: what each call was, as strace tells, by its name.
        landed: whether the fault came.
    """

    ended: Ended
    calls: dict[str, list[str]]
    landed: bool

    @property
    def most(self) -> int:
        """How many calls there were of the name that has most: strace counts each name by itself."""
        return max(map(len, self.calls.values()), default=0)


def disturb(
    server: Server, words: Sequence[str], calls: str, fault: str, at: int, log: Path, off: Sequence[str] = ()
) -> Disturbed:
    """Run a command whose `at`-th call, of any of the `calls`, has the `fault`."""
    gate = log.with_suffix(".gate")
    gate.unlink(missing_ok=True)
    child = server.start(*words, off=("threads", *off), gate=gate)
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}:when={at}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-o", str(log), *inject, "-p", str(child.pid)], stderr=subprocess.DEVNULL
    )
    while not is_traced(child.pid):
        assert tracer.poll() is None, "strace did not attach"
        time.sleep(0.001)
    gate.touch()
    ended = child.wait()
    tracer.wait()
    lines = [line.split(maxsplit=1)[1] for line in log.read_text(errors="replace").splitlines()]
    calls_by_name: dict[str, list[str]] = {}
    for line in lines:
        if line[0].isalpha():
            calls_by_name.setdefault(line.partition("(")[0], []).append(line)
    return Disturbed(ended, calls_by_name, ended.code == -9 or any("(INJECTED)" in line for line in lines))


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def instants(count: int, calls: int, rng: np.random.Generator) -> Iterator[int]:
    """Which calls fail: a sample; or all of them, and those after them, should there be more this time."""
    if count == EVERY:
        return itertools.count(1)
    return iter(sorted(int(k) for k in rng.choice(calls, min(count, calls), replace=False) + 1))


def disturb_each(
    made: Made,
    server: Server,
    stage: str,
    fault: str,
    count: int,
    tries: Callable[[], Path],
    log: Path,
    off: Sequence[str] = (),
) -> Tally:
    """Let calls of a stage have a fault, one in each trial, and look at what is left."""
    tally = Tally()
    rng = np.random.default_rng([SEED, sorted(STAGES).index(stage), sorted(FAULTS).index(fault)])
    quiet = made.copy(STAGES[stage].before, tries())
    calls = disturb(server, [*made.words(stage, quiet), "-q"], *FAULTS[fault], NEVER, log, off).most
    for at in instants(count, calls, rng):
        store = made.copy(STAGES[stage].before, tries())
        told = disturb(server, [*made.words(stage, store), "-q"], *FAULTS[fault], at, log, off)
        if not told.landed:
            assert told.ended.code == 0, told.ended
            break
        tally.landed += 1
        what = f"{fault}, number {at} of {calls}"
        if told.ended.code != -9 and told.ended.code != 0 and not told.ended.refused:
            tally.faults.append(f"{stage}, {what}: {told.ended}")
        tally.add(made, server, stage, store, told.ended, what)
    return tally


@pytest.mark.parametrize("count", [SMALL, pytest.param(EVERY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", DISTURBED)
def test_calls_that_fail_lose_nothing(stage, count, made, server, tries, tmp_path, campaign):
    tally, faults = Tally(), FAULTS if count == EVERY else sampled(stage)
    for fault in faults:
        tally += disturb_each(made, server, stage, fault, count, tries, tmp_path / "log")
    campaign(f"faults in {stage}", **tally.figures, seed=SEED)
    assert (tally.lost, tally.silent, tally.resumed, tally.faults) == (0, 0, tally.n, [])
    assert tally.n >= len(faults)


def sampled(stage: str) -> list[str]:
    """The faults that a short campaign tries: a few for each stage, all of them for some stage."""
    return list(FAULTS)[DISTURBED.index(stage) :: 3]


def test_death_in_the_write_of_the_root_is_found_where_it_is_in_place(
    made, server, tries, tmp_path, campaign
):
    """Teeth: without a temporary name and a rename, the store is lost."""
    stage, (calls, kill), off = "re-voxelize", FAULTS["killed in a write"], ("rename",)
    store = made.copy(STAGES[stage].before, tries())
    quiet = disturb(server, made.words(stage, store), calls, kill, NEVER, tmp_path / "log", off)
    assert quiet.ended.code == 0, quiet.ended
    (at,) = (n for n, line in enumerate(quiet.calls["write"], start=1) if f"{store}/zarr.json>" in line)
    store = made.copy(STAGES[stage].before, tries())
    told = disturb(server, made.words(stage, store), calls, kill, at, tmp_path / "log", off)
    tally = Tally(landed=int(told.landed))
    tally.add(made, server, stage, store, told.ended, f"killed in write {at}")
    campaign("killed in the write of the root, in place", **tally.figures)
    assert tally.lost == 1


def test_faults_without_generations_are_found(made, server, tries, tmp_path, campaign):
    """Teeth: where the new is built in the place of the old, the old is lost."""
    fault, log = "no space left for a write", tmp_path / "log"
    tally = disturb_each(made, server, "re-ingest", fault, 2 * SMALL, tries, log, off=("generations",))
    campaign("faults in re-ingest, no generations", **tally.figures, seed=SEED)
    assert tally.lost + tally.silent > 0
