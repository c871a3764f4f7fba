"""What can be found out when a run fails: which numbers were not finite and where, or what filled the memory."""

import logging
from collections.abc import Sequence
from pathlib import Path

from model.training.config import TrainConfig
from model.training.diagnosis import Diagnosis, diagnose
from model.training.failed_step import FailedStep, failed_step_path, write_failed_step
from model.training.learner import Learner
from model.training.memory import Shortage, attempt
from model.training.memory_report import MemoryReport
from model.training.step_clips import StepClips, name_of
from pipeline.clips import Sample

logger = logging.getLogger(__name__)

_MOST_SAID = 12
"""Lines of an error, so that it fits a screen; the rest is in the log and in the file."""


class PostMortem:
    """Explains the failures of one run.

    Args:
        run: its folder.
        config: of the run.
        learner: does its steps.
        clips: names the clips of its steps.
    """

    def __init__(self, run: Path, config: TrainConfig, learner: Learner, clips: StepClips) -> None:
        self.run = run
        self.config = config
        self.learner = learner
        self.clips = clips

    def of_step(self, step: int, batches: Sequence[Sample]) -> str:
        """Diagnose a step that was not finite, keep its batches in the run's folder, and say what was found.

        Every process does so with its own batches; one that finds nothing keeps nothing, unless it is alone.
        """
        place = self.learner.place
        diagnosis, shortage = attempt(lambda: diagnose(self.learner, step, batches), place)
        lines = (
            diagnosis.lines()
            if diagnosis
            else [f"no memory for a diagnosis: {shortage and shortage.problem}"]
        )
        if place.world == 1 or (diagnosis and not diagnosis.is_finite):
            lines += self._keep(step, batches, diagnosis)
        for line in lines:
            logger.error("%s", line)
        return "".join(f"\n  {line}" for line in lines[:_MOST_SAID])

    def of_memory(self, shortage: Shortage) -> MemoryReport:
        """What filled the memory in a step, and which settings would fit."""
        source, stages = self.clips.sources[0], self.learner.network.config.checkpoint_stages
        return MemoryReport(self.learner, self.config, source.num_bins, source.scale, stages, shortage.use)

    def _keep(self, step: int, batches: Sequence[Sample], diagnosis: Diagnosis | None) -> list[str]:
        place = self.learner.place
        clips = self.clips.of_process(step, place.rank)
        path = failed_step_path(self.run, step, place.rank, place.world)
        report = {"clips": clips, "diagnosis": diagnosis.to_json() if diagnosis else None}
        try:
            write_failed_step(path, FailedStep(step=step, batches=tuple(batches), report=report))
        except OSError as error:
            return [f"clips {', '.join(map(name_of, clips))}; they cannot be written: {error}"]
        return [f"clips {', '.join(map(name_of, clips))}, kept in {path}"]
