"""The verb `plan`: a store and a config to settings that fit the device, measured there."""

import os
import tempfile
from pathlib import Path

from model.planning.plan import Plan, write_plan
from model.planning.planner import Foretold, Planner
from model.training.config import TrainConfig
from pipeline.errors import UsageError
from pipeline.files import make_durable
from pipeline.reports import Progress, no_progress


def plan(
    config: TrainConfig,
    out: Path,
    *,
    clips: int | None = None,
    memory_gb: float | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Plan:
    """Find out how to train `config` on this device, and write that down.

    Args:
        out: the file to write. Runs in miniature are written beside it, and removed.
        clips: that a process takes in a step; None keeps those of the config.
        memory_gb: most memory to use, in 1e9 bytes; None takes what is free, less a margin.
        progress: told what is being tried.

    Raises:
        UsageError: `out` is there, or this is one of several processes.
        TrainingError: nothing fits.
        SpkError: as `train`.
    """
    _require_one_process()
    if out.exists() and not overwrite:
        raise UsageError(
            f"{out}: is there already", "choose another file with -o, or replace it with --overwrite"
        )
    make_durable(out.absolute().parent)
    with tempfile.TemporaryDirectory(prefix=".spk-plan-", dir=out.absolute().parent) as folder:
        planning = Planner(config, clips=clips, memory_gb=memory_gb, folder=Path(folder), progress=progress)
        found = planning.run()
    write_plan(out, found)
    return found


def foretell(
    config: TrainConfig,
    *,
    clips: int | None = None,
    memory_gb: float | None = None,
    progress: Progress = no_progress,
) -> Foretold:
    """What `plan` would begin with, foretold without a step.

    Raises:
        UsageError: this is one of several processes.
        SpkError: as `train`.
    """
    _require_one_process()
    with tempfile.TemporaryDirectory(prefix="spk-plan-") as folder:
        planning = Planner(config, clips=clips, memory_gb=memory_gb, folder=Path(folder), progress=progress)
        return planning.foretell()


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "a plan is made by one process",
            "start `spk plan` without torchrun; --batch is then what each process takes in a step",
        )
