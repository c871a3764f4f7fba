"""Steps that changed nothing: said, but not so often that they hide everything else, and all of them written down."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from model.training.events import Listener
from model.training.step_clips import StepClips

logger = logging.getLogger(__name__)

_MOST_NAMED = 4


class SkippedSteps(Listener):
    """Logs the first few skipped steps and then the 10th, 100th …, and records the clips of each.

    Args:
        clips: names them.
        record: writes one down, as plain values: `step` (steps done) and `left_out`, names of its clips.
    """

    def __init__(self, clips: StepClips, record: Callable[[Mapping[str, Any]], None]) -> None:
        self.clips = clips
        self.record = record
        self._count = 0

    def on_skipped(self, step: int, loss: float, grad_norm: float) -> None:
        """One more."""
        self._count += 1
        names = self.clips.names(step)
        if is_said(self._count):
            more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
            logger.warning(
                "step %d left out (number %d; the 10th, 100th … are said): loss %s, grad norm %s, clips %s%s",
                *(step + 1, self._count, loss, grad_norm, ", ".join(names[:_MOST_NAMED]), more),
            )
        self.record({"step": step + 1, "left_out": names})


def is_said(count: int) -> bool:
    """Whether number `count` (from 1) is among the first three or a power of ten."""
    return count <= 3 or str(count).strip("0") == "1"
