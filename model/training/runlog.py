"""What a run says while it learns, in `log.txt` and to whoever runs it."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from model.training.events import Listener, StepMetrics, Validation

logger = logging.getLogger(__name__)

_LOGGERS = ("model", "pipeline")

ROUTINE = {"routine": True}
"""Marks, as `extra` of a log record, what a display that shows the newest step need not repeat."""


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
    """Logs a line a step."""

    def on_step(self, metrics: StepMetrics) -> None:
        """Log the line."""
        logger.info("%s", log_line(metrics), extra=ROUTINE)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Log the result."""
        best = ", the best so far" if is_best else ""
        logger.info(
            "step %d  val PSNR %.3f dB over %d frames%s", step, validation.psnr, validation.frames, best
        )


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
