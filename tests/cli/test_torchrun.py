"""`torchrun -m cli train` on the CPU: several processes, one run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import read_info
from model.checkpoint_file import load_tensors
from tests.ranks import ranks, spk_in_each

ROOT = Path(__file__).parents[2]
STEPS = 14


@pytest.fixture
def settings(store: Path, small_training: list[str]) -> list[str]:
    """A run in which one of two processes has nothing to validate, with a frozen phase and recomputed stages."""
    often = [f"steps={STEPS}", "checkpoint_every=3", "validate_every=4", "validate_clips=1", "workers=1"]
    own = ["batch_size=1", "network.drop_path_rate=0.3", "network.checkpoint_stages=[1,8]"]
    return ["tiny", *small_training, *often, *own, "optim.flow_freeze_steps=2", f"store={store}"]


def steps_done(run: Path) -> int:
    """According to the metrics."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def differences(one: Path, other: Path) -> list[str]:
    """Names of the tensors that differ in a bit between the last checkpoints of two runs."""
    ours, theirs = load_tensors(last(one)), load_tensors(last(other))
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


def test_a_run_that_is_stopped_and_killed_ends_where_one_process_does(
    settings: list[str], tmp_path: Path, spk: Callable[..., Any]
) -> None:
    """Bit for bit: half of a sum of two gradients is the sum of their halves."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    one_process = ("train", *settings, "optim.accumulate=2")
    assert spk(*one_process, "-o", alone).code == 0

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"]
    command = [sys.executable, *launcher, "-m", "cli", "train", *settings, "-o", str(run)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as torchrun:
        while steps_done(run) < 2 and torchrun.poll() is None:
            time.sleep(0.01)
        torchrun.terminate()
        said = torchrun.communicate(timeout=120)[1]
        assert torchrun.returncode == 1, said  # its own; the processes end with 75
    stopped = read_info(last(run)).step
    assert 2 <= stopped < STEPS and f"stopped after step {stopped}" in said and "error: " not in said

    with ranks(tmp_path, spk_in_each, "train", *settings, "-o", str(run), "--resume") as processes:
        processes.until(lambda: steps_done(run) >= min(stopped + 4, STEPS - 2))
        os.kill(processes.processes[1].pid or 0, signal.SIGKILL)
        assert processes.wait(60) == [1, -signal.SIGKILL]
    assert "error: process 1 of the run ended before this one\nfix: " in processes.said(0)
    assert stopped <= read_info(last(run)).step < STEPS

    assert spk(*one_process, "-o", run, "--resume").code == 0
    assert not differences(alone, run)
    assert steps_done(run) == STEPS
    assert [path.name for path in sorted(run.iterdir())] == [path.name for path in sorted(alone.iterdir())]


@pytest.mark.slow
def test_split_weights_give_whole_checkpoints(
    settings: list[str], trained: Path, tmp_path: Path, spk: Callable[..., Any]
) -> None:
    """Begun with split weights, gone on with by processes with whole ones, and ended by one process."""
    run = tmp_path / "run"
    words = ("train", *settings, "-o", str(run), "steps=4")
    with ranks(tmp_path, spk_in_each, *words, "parallel.strategy=fsdp") as processes:
        assert processes.wait() == [0, 0], processes.said(0) + processes.said(1)
    before = read_info(last(run))
    assert before.step == 4 and before.best["step"] == 4 and before.averaged
    assert load_tensors(last(run)).keys() == load_tensors(last(trained)).keys()
    assert list((run / "samples").iterdir())
    score = spk("evaluate", run, "--split", "val", "--json").json["protocols"]["rgb8-all"]["psnr"]
    assert score == pytest.approx(before.best["val_psnr"], abs=3)  # of other windows and crops

    with ranks(tmp_path, spk_in_each, *words, "steps=6", "--resume") as processes:
        assert processes.wait() == [0, 0], processes.said(0) + processes.said(1)
    assert spk(*words, "steps=8", "optim.accumulate=2", "--resume", "--json").json["step"] == 8


def train_from_own_store(stores: list[str], words: list[str]) -> None:
    spk_in_each("train", *words, f"store={stores[int(os.environ['RANK'])]}")


def test_processes_with_other_stores_refuse_each_other(
    settings: list[str], store: Path, tmp_path: Path, spk: Callable[..., Any]
) -> None:
    other, run = Path(shutil.copytree(store, tmp_path / "other")), tmp_path / "run"
    assert spk("voxelize", other, "--bins", 4, "--virtual").code == 0
    words = [*settings, "-o", str(run)]
    with ranks(tmp_path, train_from_own_store, [str(store), str(other)], words) as processes:
        assert processes.wait(60) == [2, 2]
    said = processes.said(0)
    assert "store fingerprint: " in said and " in process 0 on " in said and " in process 1 on " in said
    assert processes.said(1) == "" and not run.exists()


def train_with_little_memory(words: list[str]) -> None:
    from model.training.learner import Learner

    step_of = Learner.step

    def step(self: Learner, number: int, *arguments: Any) -> Any:
        if number == 1 and self.place.rank == 1:
            raise torch.OutOfMemoryError("tried to allocate too much")
        return step_of(self, number, *arguments)

    Learner.step = step  # type: ignore[method-assign] - in a process of its own
    spk_in_each("train", *words)


def test_one_process_that_is_out_of_memory_ends_all(settings: list[str], tmp_path: Path) -> None:
    words = [*settings, "checkpoint_every=1", "-o", str(tmp_path / "run")]
    with ranks(tmp_path, train_with_little_memory, words) as processes:
        assert processes.wait(60) == [1, 1]
    assert "error: process 1: out of memory" in processes.said(1)
    assert "error: process 1 of the run ended before this one" in processes.said(0)
    assert read_info(last(tmp_path / "run")).step == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_runs_killed_at_random_instants_end_where_an_uninterrupted_one_does(
    settings: list[str], tmp_path: Path, campaign: Callable[..., str], strategy: str
) -> None:
    """Each loses one of its two processes, whichever, twice; bit for bit."""
    trials, kills, landed, seed, longest = 3, 2, 0, 17, 0.0
    chance = random.Random(seed)
    words = ("train", *settings, f"parallel.strategy={strategy}", "-o")
    with ranks(tmp_path, spk_in_each, *words, str(tmp_path / "whole")) as processes:
        started = time.monotonic()
        assert processes.wait(600) == [0, 0], processes.said(0)
    span = time.monotonic() - started
    for trial in range(trials):
        run = tmp_path / f"run_{trial}"
        for _ in range(kills):
            resume = ["--resume"] if (run / "run.json").exists() else []
            with ranks(tmp_path, spk_in_each, *words, str(run), *resume) as processes:
                victim = chance.randrange(2)
                processes.processes[victim].join(chance.uniform(0.2, 0.8) * span)
                if processes.processes[victim].is_alive():
                    landed += 1
                    processes.processes[victim].kill()
                    since = time.monotonic()
                    codes = processes.wait(120)
                    longest = max(longest, time.monotonic() - since)
                    assert codes[1 - victim] == 1, processes.said(1 - victim)
                    assert f"process {victim} of the run " in processes.said(1 - victim)
        resume = ["--resume"] if (run / "run.json").exists() else []
        with ranks(tmp_path, spk_in_each, *words, str(run), *resume) as processes:
            assert processes.wait(600) == [0, 0], processes.said(0)
        assert not differences(tmp_path / "whole", run)
    campaign(f"ranks_killed_{strategy}", n=trials, kills=landed, seed=seed, slowest_end_s=round(longest, 1))
