"""`metrics.jsonl`: what a run measured, a JSON object a line, in the order of its steps.

Every line has `step` (steps done) and `time` (UTC, ISO 8601, when it was written). A line of a logged step has the
fields of `StepMetrics` besides; a line of a validation has `val_psnr` (dB), `val_frames` and `best` (whether it was the
best so far), one of a step that was left out `left_out`, the names of its clips. A number that is not finite is null.
"""

import contextlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from model.training.events import Listener, StepMetrics, Validation
from pipeline.files import write_atomic

logger = logging.getLogger(__name__)


class Metrics(NamedTuple):
    """What a metrics file says.

    Attributes:
        lines: in order, each with an integer `step`.
        damaged: numbers (from 1) of the lines that are none; a last one without an end, which is what a killed process
            leaves, is not counted.
    """

    lines: Sequence[Mapping[str, Any]]
    damaged: Sequence[int]

    def of_steps(self) -> list[Mapping[str, Any]]:
        """The lines of logged steps."""
        return [line for line in self.lines if "loss" in line]

    def of_validations(self) -> list[Mapping[str, Any]]:
        """The lines of validations."""
        return [line for line in self.lines if "val_psnr" in line]


def read_metrics(path: Path) -> Metrics:
    """Read a metrics file that may be damaged, unfinished or not there yet.

    Raises:
        OSError: it is there and cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1].split("\n")[:-1]
    read = [_parse(line) for line in whole]
    damaged = [number for number, line in enumerate(read, 1) if line is None]
    return Metrics([line for line in read if line is not None], damaged)


class MetricsFile(Listener):
    """Writes the lines; a line never changes what an earlier one says.

    Args:
        path: the file; lines of steps after `start`, left by a run that was killed, and damaged lines are dropped.
        start: steps already done.
    """

    def __init__(self, path: Path, start: int) -> None:
        before = read_metrics(path)
        if before.damaged:
            numbers = ", ".join(map(str, before.damaged))
            logger.warning(
                "%s: damaged in line %s, which is left out of the curves from now on", path, numbers
            )
        kept = [line for line in before.lines if line["step"] <= start]
        write_atomic(path, "".join(f"{json.dumps(line)}\n" for line in kept))
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""

    def on_step(self, metrics: StepMetrics) -> None:
        """Write the metrics of a step."""
        self.write(asdict(metrics))

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Write the result of a validation."""
        self.write(
            {"step": step, "val_psnr": validation.psnr, "val_frames": validation.frames, "best": is_best}
        )

    def on_checkpoint(self, step: int) -> None:
        """Bring the lines to the disk: a run goes on from its checkpoint, and does not write them again."""
        self._flush()
        os.fsync(self._file.fileno())

    def write(self, values: Mapping[str, Any]) -> None:
        """Write a line, with the time of now; what is not a finite number becomes null.

        Raises:
            OSError: the disk is full or fails; the line is kept, and written with the next one.
        """
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._unwritten += json.dumps({**finite, "time": now}).encode() + b"\n"
        self._flush()

    def close(self) -> None:
        """Close the file, whatever is left to write."""
        with self._file, contextlib.suppress(OSError):
            self._flush()

    def _flush(self) -> None:
        while self._unwritten:  # a full disk takes a part of a line first, which the rest has to follow
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and type(values.get("step")) is int else None
