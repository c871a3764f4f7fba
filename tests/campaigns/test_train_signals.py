"""Signals at random instants of a training run: it leaves a checkpoint and says so, and goes on as if nothing was."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from model.checkpoint import CheckpointFolder
from model.checkpoint_file import load_tensors
from tests.campaigns.server import REPOSITORY, Child, Ended, Server

SEED = 20261126
SMALL, FULL = 2, 200
DOUBLE = 0.25
"""Share of the trials in which Ctrl-C follows."""
STEPS, MOST_STEPS_MORE, MOST_SECONDS = 4, 2, 10.0
RESUMABLE, INTERRUPTED = 75, 130
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
METRICS = ("step", "loss", "val_psnr", "best")
"""What is equal line by line; speeds are not."""


class Outcome(NamedTuple):
    """What a finished run computed."""

    tensors: dict[str, dict[str, torch.Tensor]]
    metrics: list[dict[str, Any]]


def outcome_of(run: Path) -> Outcome:
    files = {name: load_tensors(run / "checkpoints" / f"{name}.safetensors") for name in ("last", "best")}
    return Outcome(files, [{key: line[key] for key in METRICS if key in line} for line in metrics_of(run)])


def metrics_of(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def steps_of(run: Path) -> int:
    return max((line["step"] for line in metrics_of(run)), default=0)


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Names of what differs, bit by bit."""
    found = [
        f"{name}: {key}"
        for name, tensors in one.tensors.items()
        for key in sorted(tensors.keys() | other.tensors[name].keys())
        if key not in tensors
        or key not in other.tensors[name]
        or not torch.equal(tensors[key], other.tensors[name][key])
    ]
    return found + ["metrics"] * (one.metrics != other.metrics)


@dataclass(frozen=True)
class Training:
    """A run that is disturbed, the same one undisturbed, and the seconds that took.

    Attributes:
        words: of its command line, without -o.
    """

    server: Server
    words: list[str]
    undisturbed: Outcome
    seconds: float

    def start(self, run: Path, off: Sequence[str] = ()) -> Child:
        resume = ["--resume"] if (run / "run.json").exists() else []
        return self.server.start(*self.words, "-o", run, *resume, off=off)


@dataclass
class Tally:
    """What became of the runs of a campaign.

    Attributes:
        n: trials; landed: of these, the ones in which the signal came when the run had begun and was not yet done.
        early: in which it came before anything was written, or listened.
        twice: in which Ctrl-C followed in time and ended the run at once.
        looks: in which a validation was put off.
        late: that took more than two steps or ten seconds, or ended with another code.
        resumed: that were in the end equal to the undisturbed one, bit by bit.
        slowest: seconds from the signal to the end.
    """

    n: int = 0
    landed: int = 0
    early: int = 0
    twice: int = 0
    looks: int = 0
    late: int = 0
    resumed: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, object]:
        names = ("n", "landed", "early", "twice", "looks", "late", "resumed")
        return {name: getattr(self, name) for name in names} | {"slowest_s": f"{self.slowest:.2f}"}


@pytest.fixture(scope="module")
def training(
    tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str], small_training: list[str]
) -> Iterator[Training]:
    folder = tmp_path_factory.mktemp("signals")
    (folder / "children").mkdir()
    server = Server(folder / "children")
    server.here("simulate", "scenes", *small_scenes, "-o", folder / "raw")
    server.here("ingest", folder / "raw", "-o", folder / "store", "-m", "simulated")
    server.here("voxelize", folder / "store", "--bins", 4)
    server.load("model.train")
    often = ["log_every=1", "validate_every=2", "sample_every=3", "checkpoint_every=3", "validate_clips=4"]
    changes = [*small_training, f"steps={STEPS}", "workers=2", *often, f"store={folder / 'store'}"]
    words = ["train", "tiny", *changes]
    ended = server.run(*words, "-o", folder / "whole")
    assert ended.code == 0, ended
    yield Training(server, words, outcome_of(folder / "whole"), ended.seconds)
    server.close()


def disturb(
    training: Training, count: int, folder: Path, off: Sequence[str] = (), *, begun: bool = False
) -> Tally:
    """Send signals to `count` runs, and take each of them to its end.

    Args:
        begun: whether to wait for the first step of a run, and send the signal then.
    """
    tally, rng = Tally(), np.random.default_rng(SEED)
    for number in range(count):
        run = folder / f"run {number}"
        one = SIGNALS[number % len(SIGNALS)]
        group, after = bool(rng.integers(2)), float(rng.random()) * training.seconds
        again = float(rng.random()) * 0.3 if rng.random() < DOUBLE else None
        what = (
            f"{number}: {one.name} to the {'group' if group else 'process'} after {after:.3f} s, then {again}"
        )
        child = training.start(run, off)
        if begun:
            while not steps_of(run) and child.is_running():
                time.sleep(0.002)
        else:
            time.sleep(after)
        child.send(one, group=group)
        sent, done = time.monotonic(), steps_of(run)
        if again is not None:
            time.sleep(again)
            child.send(signal.SIGINT, group=group)
        ended = child.wait()
        tally.slowest = max(tally.slowest, time.monotonic() - sent)
        judge(tally, run, ended, done, time.monotonic() - sent, what, twice=again is not None)
        for _ in range(3):
            if (ended := training.start(run).wait()).code == 0:
                break
        wrong = differences(training.undisturbed, outcome_of(run)) if ended.code == 0 else [ended.err]
        tally.resumed += not wrong
        tally.faults += [f"{what}: not as undisturbed: {wrong[:5]}"] if wrong else []
        shutil.rmtree(run)
    return tally


def judge(
    tally: Tally, run: Path, ended: Ended, done: int, seconds: float, what: str, *, twice: bool
) -> None:
    """Look at how a run ended.

    Args:
        done: steps when the signal was sent.
        twice: whether Ctrl-C followed.
    """
    tally.n += 1
    begun = (run / "run.json").exists()
    last = CheckpointFolder(run / "checkpoints").load_last()
    if not begun:  # killed before it listened, by what the signal does by default
        tally.early += 1
        good = last is None and (ended.code < 0 or ended.code in (RESUMABLE, INTERRUPTED))
    elif ended.code == 0:
        good = steps_of(run) == STEPS
    elif twice and ended.code == INTERRUPTED:
        tally.landed += 1
        tally.twice += 1
        good = True
    else:
        tally.landed += 1
        tally.looks += bool(last and last.header["look_due"])
        good = (
            ended.code == RESUMABLE
            and last is not None
            and last.step == steps_of(run) <= done + MOST_STEPS_MORE
            and seconds < MOST_SECONDS
        )
    if not good:
        tally.late += 1
        step = last.step if last else None
        tally.faults.append(f"{what}: {seconds:.2f} s, step {done}, checkpoint {step}, {ended}")


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_signals_lose_nothing(count, training, tmp_path, campaign):
    tally = disturb(training, count, tmp_path)
    campaign("signals while training", **tally.figures, seed=SEED)
    assert (tally.late, tally.resumed, tally.faults) == (0, count, [])
    assert tally.landed >= count // 3


@pytest.mark.slow
@pytest.mark.parametrize("to_both", [True, False])
def test_two_processes_stop_together_and_go_on_together(to_both, training, tmp_path, campaign):
    """As a scheduler starts them, in one process group: a signal to all of it, or to the second one alone."""
    n = resumed = 0
    run_two(training, tmp_path / "whole")
    whole = outcome_of(tmp_path / "whole")
    for done in (1, 2, 3):
        run, n = tmp_path / f"run {done}", n + 1
        codes = run_two(training, run, stop_after=done, to_both=to_both)
        assert codes == [RESUMABLE] * 2
        assert CheckpointFolder(run / "checkpoints").load_last().step <= done + MOST_STEPS_MORE
        assert run_two(training, run) == [0, 0]
        resumed += not differences(whole, outcome_of(run))
    campaign(f"signals to {'both' if to_both else 'one'} of two processes", n=n, resumed=resumed)
    assert resumed == n


def run_two(
    training: Training, run: Path, stop_after: int | None = None, *, to_both: bool = True
) -> list[int]:
    """Train with two processes; exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    resume = ["--resume"] if (run / "run.json").exists() else []
    command = [sys.executable, "-m", "cli", *training.words, "-o", str(run), *resume]
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes: list[subprocess.Popen[bytes]] = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        group = processes[0].pid if processes else 0
        processes.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=os.environ | where | place,
                process_group=group,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    if stop_after is not None:
        while steps_of(run) < stop_after and processes[0].poll() is None:
            time.sleep(0.002)
        if to_both:
            os.killpg(processes[0].pid, signal.SIGTERM)
        else:
            processes[1].send_signal(signal.SIGTERM)
    return [process.wait(300) for process in processes]


def test_runs_that_do_not_listen_are_found(training, tmp_path, campaign):
    """Teeth: where signals do what they do by default, the same campaign finds runs without their checkpoint."""
    tally = disturb(training, 1, tmp_path, off=("signals",), begun=True)
    campaign("signals while training, not listening", **tally.figures, seed=SEED)
    assert tally.late > 0
