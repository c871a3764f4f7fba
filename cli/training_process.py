"""A `spk train` command in a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import TrainingError

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class TrainingProcess:
    """A training that was started; `messages` holds what it says."""

    run: Path
    process: subprocess.Popen[bytes]
    messages: IO[bytes]

    def require_success(self, *others: int) -> None:
        """Let it be running, or have ended with 0 or one of the `others`.

        Raises:
            TrainingError: it failed; what it said is in the message.
        """
        if self.process.poll() not in (None, 0, *others):
            self.messages.seek(0)
            text = self.messages.read().decode(errors="replace").strip()
            raise TrainingError(f"{self.run}: training failed\n{text}")

    def steps_done(self) -> int:
        """The last step in the run's metrics; 0 before the first."""
        try:
            lines = (self.run / "metrics.jsonl").read_bytes().splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            with contextlib.suppress(ValueError):  # the last line may be half written
                return int(json.loads(line)["step"])
        return 0


@contextlib.contextmanager
def training_process(run: Path, arguments: Sequence[str], threads: int) -> Iterator[TrainingProcess]:
    """Start a training; one that still runs at the end is asked to stop, and waited for.

    Args:
        arguments: the config, overrides and options that `spk train` takes beside the run folder.
        threads: cores it may use.
    """
    command = [sys.executable, "-m", "cli", "train", *arguments, "-o", str(run), "--quiet"]
    paths = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages
        )
        try:
            yield TrainingProcess(run, process, messages)
        finally:
            process.terminate()  # to one that has ended this is nothing
            process.wait()
