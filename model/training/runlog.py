"""What a run leaves to read: `log.txt`, `metrics.jsonl`, TensorBoard."""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from model.training.events import Listener, StepMetrics, Validation
from pipeline.files import write_atomic

logger = logging.getLogger(__name__)

_LOGGERS = ("model", "pipeline")

_SPACE_BYTES = 1 << 20
"""Free space with which it is worth a try to write curves again."""

SLOW_DATA = 0.2
"""Share of the time spent waiting for clips from which a hint is given."""


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what this program logs inside to `path`, from INFO on."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with contextlib.closing(handler), _our_loggers() as loggers:
        for log in loggers:
            log.addHandler(handler)
            if log.getEffectiveLevel() > logging.INFO:
                log.setLevel(logging.INFO)
        try:
            yield
        finally:
            for log in loggers:
                log.removeHandler(handler)


class _LogFile(logging.FileHandler):
    """A log file that may fail: that is said once, elsewhere, and the program goes on."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Called within the except scope of a failed write."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True  # before this handler gets the message as well
            logger.error("%s CANNOT BE WRITTEN: %s; going on without it", self.baseFilename, error)

    def close(self) -> None:
        """Close the file, whatever is left to write."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Let only errors be said inside: every process but the main one would repeat what it says."""
    with _our_loggers() as loggers:
        for log in loggers:
            log.setLevel(logging.ERROR)
        yield


@contextlib.contextmanager
def _our_loggers() -> Iterator[list[logging.Logger]]:
    """The loggers of this program, whose levels are put back afterwards."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [log.level for log in loggers]
    try:
        yield loggers
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


class LogLines(Listener):
    """Logs a line a step, and a hint when the clips come too slowly."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._hinted = False

    def on_step(self, metrics: StepMetrics) -> None:
        """Log the line."""
        logger.info("%s", log_line(metrics))
        if metrics.data_share > SLOW_DATA and not self._hinted:
            self._hinted = True
            logger.info(
                "%.0f %% of the time is spent waiting for clips: try workers=%d, or a store on a faster disk",
                100 * metrics.data_share,
                2 * max(self.workers, 1),
            )

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Log the result."""
        best = ", the best so far" if is_best else ""
        logger.info(
            "step %d  val PSNR %.3f dB over %d frames%s", step, validation.psnr, validation.frames, best
        )


class MetricsFile(Listener):
    """Writes a JSON object a line to `metrics.jsonl`; a step's line never changes what an earlier one says.

    Args:
        path: the file; lines of steps after `start`, left by a run that was killed, are dropped.
        start: steps already done.
    """

    def __init__(self, path: Path, start: int) -> None:
        kept = [line for line in _lines(path) if _step_of(line) <= start]
        write_atomic(path, "".join(f"{line}\n" for line in kept))
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

    def write(self, values: Mapping[str, Any]) -> None:
        """Write a line; what is not a finite number becomes null.

        Raises:
            OSError: the disk is full or fails; the line is kept, and written with the next one.
        """
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._unwritten += json.dumps(clean).encode() + b"\n"
        self._flush()

    def close(self) -> None:
        """Close the file, whatever is left to write."""
        with self._file, contextlib.suppress(OSError):
            self._flush()

    def _flush(self) -> None:
        while self._unwritten:  # a full disk takes a part of a line first, which the rest has to follow
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


class TensorBoardLog(Listener):
    """Writes scalars and pictures for TensorBoard, going on after step `start`."""

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def recover(self) -> None:
        """Begin another file: a writer that failed once fails for good.

        Raises:
            OSError: there is no space for one.
        """
        if shutil.disk_usage(self._folder).free < _SPACE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self.close()
        self._writer = SummaryWriter(str(self._folder))

    def on_step(self, metrics: StepMetrics) -> None:
        """Write the curves of a step."""
        for name in ("loss", "charbonnier", "perceptual", "lr", "grad_norm", "skipped"):
            self._writer.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)
        for name in ("steps_per_s", "data_share", "memory_bytes"):
            self._writer.add_scalar(f"speed/{name}", getattr(metrics, name), metrics.step)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Write the validation curve."""
        self._writer.add_scalar("val/psnr", validation.psnr, step)

    def show(self, step: int, picture: npt.NDArray[np.uint8]) -> None:
        """Write a picture, uint8 (3, H, W)."""
        self._writer.add_image("blurry | restored | sharp", picture, step)

    def close(self) -> None:
        """Write what is left, if it can be written: the curves are not worth an error at the end of a run."""
        with contextlib.suppress(OSError):
            self._writer.close()


def log_line(metrics: StepMetrics) -> str:
    """One step in one line."""
    skipped = f"  skipped {metrics.skipped}" if metrics.skipped else ""
    return (
        f"step {metrics.step}/{metrics.steps}  loss {metrics.loss:.4f}  lr {metrics.lr:.1e}"
        f"  grad {metrics.grad_norm:.2f}  {metrics.steps_per_s:.3g} it/s"
        f"  data {100 * metrics.data_share:.0f} % compute {100 * (1 - metrics.data_share):.0f} %"
        f"  mem {metrics.memory_bytes / 2**30:.1f} GiB  ETA {duration(metrics.eta_s)}{skipped}"
    )


def duration(seconds: float) -> str:
    """A time span by its two largest units: 45s, 3m20s, 5h07m, 2d04h."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02d}h"
    if hours:
        return f"{h}h{m:02d}m"
    return f"{m}m{s:02d}s" if m else f"{s}s"


def _lines(path: Path) -> list[str]:
    """The whole lines of the file; what a killed process left unfinished is no line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _step_of(line: str) -> int:
    return int(json.loads(line)["step"])
