"""Small trainings in processes that something happens to, and what is left of them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import CheckpointFolder
from model.checkpoint_file import load_tensors
from model.training.same_run import tensors_digest
from tests.campaigns.server import Child, Ended, Server

POLL_SECONDS = 0.001
RANDOM = ("network.drop_path_rate=0.3", "optim.ema_decay=0.9")
"""Settings of a network that draws random numbers, and is averaged."""


@dataclass(frozen=True)
class Trainings:
    """Runs `spk train` on one store, in children of a process that has loaded it.

    Attributes:
        settings: of every training; a later one counts.
    """

    server: Server
    store: Path
    settings: tuple[str, ...]

    def start(self, run: Path, *changes: str, off: Sequence[str] = ()) -> Child:
        """Start a training, or go on with the run that is there.

        Args:
            changes: more settings.
            off: protections that it does without, see `protections`.
        """
        resume = ["--resume"] if run.is_dir() and any(run.iterdir()) else []
        settings = [*self.settings, *RANDOM, *changes, f"store={self.store}"]
        return self.server.start("train", "tiny", *settings, "-o", run, *resume, off=off)

    def run(self, run: Path, *changes: str, off: Sequence[str] = ()) -> Ended:
        """Train to the end."""
        return self.start(run, *changes, off=off).wait()


def last_logged(run: Path) -> int:
    """The newest step in the metrics; 0 where there is none yet."""
    path = run / "metrics.jsonl"
    text = path.read_bytes() if path.exists() else b""
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0


def sessions_of(run: Path) -> int:
    """How many processes began to train there, and have dropped from the metrics what they do again."""
    path = run / "log.txt"
    return path.read_text().count(f"training {run} from step") if path.exists() else 0


def wait_for(run: Path, step: int, child: Child, sessions: int = 0) -> None:
    """Wait until a step is logged by a process that comes after so many `sessions`, or the training has ended."""
    while (sessions_of(run) <= sessions or last_logged(run) < step) and child.is_running():
        time.sleep(POLL_SECONDS)


def state_of(run: Path) -> tuple[int, str]:
    """Steps done, and a digest of all tensors, of the newest checkpoint that is whole."""
    last = CheckpointFolder(run / "checkpoints").load_last()
    assert last is not None, f"{run}: no checkpoint"
    return last.step, tensors_digest(load_tensors(last.path))
