"""`torchrun -m cli train`: real processes, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import read_info
from model.checkpoint_file import load_tensors

ROOT = Path(__file__).parents[2]
SETTINGS = ["steps=16", "checkpoint_every=4", "validate_every=4", "validate_clips=1"]


class Launch:
    """A command under torchrun, of two processes."""

    def __init__(self, words: list[object], log: Path) -> None:
        launcher = [
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "--max-restarts=0",
            "-m",
            "cli",
        ]
        command = [sys.executable, "-m", *launcher, *map(str, words)]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        """What it printed."""
        return self.log.read_text()

    def rank(self, number: int) -> int:
        """The process id of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        wanted = f"RANK={number}".encode()
        found = [pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
        return int(found[0])

    def wait(self, seconds: float = 180) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.terminate()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that happens while it runs."""
        deadline = time.monotonic() + 180
        while not is_so():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.01)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    launched: list[Launch] = []

    def start(*words: object) -> Launch:
        launched.append(Launch(list(words), tmp_path / f"launch_{len(launched)}.log"))
        return launched[-1]

    yield start
    for one in launched:
        if one.process.poll() is None:
            one.process.kill()


def steps_done(run: Path) -> int:
    """According to the metrics."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def test_processes_that_are_stopped_killed_and_replaced_end_where_one_process_does(
    store: Path, small_training: list[str], tmp_path: Path, launch: Callable[..., Launch], spk: Any
) -> None:
    """Bit for bit: half of a sum of two gradients is the sum of their halves."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    own = [
        "batch_size=1",
        "network.drop_path_rate=0.3",
        "optim.flow_freeze_steps=2",
        "network.checkpoint_stages=[1,8]",
    ]
    settings = [*small_training, *SETTINGS, *own, f"store={store}"]
    one_process = ("train", "tiny", *settings, "optim.accumulate=2")
    assert spk(*one_process, "-o", alone).code == 0

    stopped = launch("train", "tiny", *settings, "-o", run)
    stopped.until(lambda: steps_done(run) >= 3)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.wait() == 1, stopped.said  # torchrun's own; the processes ended with 75
    last = run / "checkpoints" / "last.safetensors"
    step = read_info(last).step
    assert f"stopped after step {step}" in stopped.said and "error: " not in stopped.said
    assert 3 <= step < 16

    killed = launch("train", "tiny", *settings, "-o", run, "--resume")
    killed.until(lambda: steps_done(run) >= max(8, step + 1))
    os.kill(killed.rank(1), signal.SIGKILL)
    assert killed.wait(60) == 1
    assert "error: process 1 of the run ended before this one" in killed.said
    assert read_info(last).step < 16

    assert spk(*one_process, "-o", run, "--resume").code == 0
    one, other = (load_tensors(path / "checkpoints" / "last.safetensors") for path in (alone, run))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert steps_done(run) == 16 and len(list((run / "samples").iterdir())) == 4
