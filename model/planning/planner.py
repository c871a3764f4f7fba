"""Finding the settings of a run that fit a device, by trying them there."""

import itertools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from model.planning.apart import call_apart
from model.planning.demand import Demand, Setting
from model.planning.device import Device
from model.planning.outlook import choose_workers, observed, predict, whole_run
from model.planning.plan import Considered, Outlook, Plan, PlannedStretch, StoreFacts
from model.planning.rehearsal import OutOfMemory, Rehearsal, rehearse
from model.planning.search import Candidate, Search, smaller_crops
from model.planning.stretches import (
    divisible_by,
    stretches_of,
    taken_in,
    with_batches_up_to,
    with_clips,
    with_crop_limit,
)
from model.planning.survey import Survey, survey
from model.training.config import TrainConfig
from pipeline.errors import TrainingError
from pipeline.reports import Progress, no_progress

logger = logging.getLogger(__name__)

_MARGIN = {"cuda": 0.05, "cpu": 0.1}
"""Part of the memory that is left alone: what else runs there takes a little more, or memory falls to pieces."""
_BATCHES = 2
"""Batches of a step that a rehearsal takes in the search: from the second on, gradients are there in the forward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foretold:
    """The settings that would be tried, and the memory foretold for them."""

    device: Device
    budget_bytes: int
    clips_per_step: int
    candidates: tuple[Considered, ...]


class Planner:
    """Settings for a run, found by trying.

    Args:
        config: what is to be trained.
        clips: that a process takes in a step; None keeps those of the config.
        memory_gb: most memory to use, in 1e9 bytes; None takes what is free on the device, less a margin.
        folder: an empty one, on the disk that the run will be written to.
        progress: told what is being tried.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        clips: int | None = None,
        memory_gb: float | None = None,
        folder: Path,
        progress: Progress = no_progress,
    ) -> None:
        self.given = config
        self.folder = folder
        self.progress = progress
        config = with_clips(config, clips) if clips else config
        # Which stages are recomputed is what is to be found out; it changes no number that is computed.
        config = replace(config, network=replace(config.network, memory_gb=None))
        self.known: Survey = call_apart(survey, config, folder / "run", progress=progress)
        self.config = self.known.config
        self.budget_bytes = round(memory_gb * 1e9) if memory_gb is not None else _usual_budget(self.known)
        self.search = Search(
            Demand(
                needs=self.known.needs,
                parameters=self.known.parameters,
                trainable=self.known.trainable,
                averaged=bool(config.optim.ema_decay),
                idle_bytes=self.known.idle_bytes,
            ),
            self.budget_bytes,
            self._try,
            always=config.network.checkpoint_stages,
            dares=self.known.device.kind == "cuda",
        )
        self._numbers = itertools.count(1)

    @property
    def clips(self) -> int:
        """That a process takes in the first step."""
        return stretches_of(self.config)[0].clips

    def foretell(self) -> Foretold:
        """Foretell without trying."""
        self.search.foretell(divisible_by(self.config), self._crop)
        return Foretold(
            device=self.known.device,
            budget_bytes=self.budget_bytes,
            clips_per_step=self.clips,
            candidates=tuple(map(self._considered, self.search.candidates)),
        )

    def run(self) -> Plan:
        """Find the settings, and check them.

        Raises:
            TrainingError: not even one clip of the smallest crop fits.
        """
        crops = list(smaller_crops(self._crop, self.known.scale))
        found = self.search.run(divisible_by(self.config), crops)
        while found:
            config = self._settled(found)
            checked = self._rehearse(config, f"checking {_named(found.setting)}", validate=True)
            if isinstance(checked, Rehearsal) and checked.peak_bytes <= self.budget_bytes:
                return self._plan(config, found, checked)
            reason = checked.text if isinstance(checked, OutOfMemory) else "above the budget when checked"
            found = self.search.reject(found, reason)
        least = min(candidate.predicted_bytes for candidate in self.search.candidates)
        raise TrainingError(
            f"{self.known.device.name}: no crop down to {crops[-1]} pixels keeps a step within"
            f" {self.budget_bytes / 1e9:.2f} GB: the smallest is foretold to need {least / 1e9:.2f} GB",
            "use a device with more memory free, lower clip.num_frames, or choose a smaller network",
        )

    @property
    def _crop(self) -> int:
        """The largest of the run."""
        return max(stretch.clip.crop for stretch in stretches_of(self.config))

    def _with(self, setting: Setting) -> TrainConfig:
        config = taken_in(with_crop_limit(self.config, setting.crop), setting.batches)
        return replace(config, network=replace(config.network, checkpoint_stages=setting.checkpoint_stages))

    def _try(self, setting: Setting) -> tuple[Rehearsal, float] | OutOfMemory:
        config = self._with(setting)
        tried = self._rehearse(with_batches_up_to(config, _BATCHES), f"trying {_named(setting)}")
        if isinstance(tried, OutOfMemory):
            logger.info("%s: %s", _named(setting), tried.text)
            return tried
        step_s = self._predicted(config, setting, tried, max(self.known.clips_per_s.values())).step_s
        logger.info("%s: %.2f GB, %.3g s a step", _named(setting), tried.peak_bytes / 1e9, step_s)
        return tried, step_s

    def _predicted(
        self, config: TrainConfig, setting: Setting, tried: Rehearsal, clips_per_s: float
    ) -> Outlook:
        clip = stretches_of(self.config)[0].clip  # that of which reading was timed
        return predict(
            stretches_of(config),
            tried.stretches,
            tried.peak_bytes,
            times=setting.batches / min(setting.batches, _BATCHES),
            clips_per_s=clips_per_s,
            clip_pixels=clip.num_frames * clip.crop**2,
        )

    def _rehearse(self, config: TrainConfig, what: str, *, validate: bool = False) -> Rehearsal | OutOfMemory:
        folder = self.folder / f"{next(self._numbers)}"

        def report(done: int, total: int, note: str) -> None:
            self.progress(done, total, what)

        try:
            return rehearse(config, folder, validate=validate, progress=report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # its checkpoint may be large

    def _settled(self, found: Candidate) -> TrainConfig:
        """The whole config, with what was found, and threads enough to read its clips."""
        config = self._with(found.setting)
        assert found.step_s is not None
        workers = choose_workers(self.known.clips_per_s, self.clips / found.step_s)
        device = replace(config.parallel, device=self.known.device.kind)
        return replace(config, workers=workers if config.workers else 0, parallel=device)

    def _plan(self, config: TrainConfig, found: Candidate, checked: Rehearsal) -> Plan:
        stretches = stretches_of(config)
        assert found.rehearsal
        measured = observed(stretches, checked)
        return Plan(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            device=self.known.device,
            free_bytes=self.known.free_bytes,
            budget_bytes=self.budget_bytes,
            clips_per_step=self.clips,
            predicted=self._predicted(
                config, found.setting, found.rehearsal, self.known.clips_per_s[max(config.workers, 1)]
            ),
            measured=measured,
            stretches=tuple(
                PlannedStretch(
                    start=stretch.start,
                    stop=stretch.stop,
                    num_frames=stretch.clip.num_frames,
                    crop=stretch.clip.crop,
                    clips=stretch.clips,
                    flow_frozen=stretch.flow_frozen,
                    step_s=cost.step_s,
                )
                for stretch, cost in zip(stretches, checked.stretches, strict=True)
            ),
            run=whole_run(
                config,
                measured,
                checked,
                checkpoint_s=found.rehearsal.end_s,
                validated=self.known.validated,
            ),
            candidates=tuple(map(self._considered, self.search.candidates)),
            notes=tuple(_notes(self.given, config, self.known.free_bytes, self.budget_bytes)),
            store=StoreFacts(**self.known.store, clips=self.known.num_clips),
            versions=self.known.versions,
        )

    def _considered(self, candidate: Candidate) -> Considered:
        config = self._with(candidate.setting)
        return Considered(
            batch_size=config.batch_size,
            accumulate=config.optim.accumulate,
            crop=candidate.setting.crop,
            checkpoint_stages=candidate.setting.checkpoint_stages,
            extra_flops=candidate.extra_flops,
            predicted_bytes=candidate.predicted_bytes,
            measured_bytes=candidate.rehearsal.peak_bytes if candidate.rehearsal else None,
            step_s=candidate.step_s,
            verdict=candidate.verdict.value,
            reason=candidate.reason,
        )


def _usual_budget(known: Survey) -> int:
    return round(known.free_bytes - _MARGIN[known.device.kind] * known.device.total_bytes)


def _named(setting: Setting) -> str:
    stages = ", ".join(map(str, setting.checkpoint_stages)) or "none"
    return f"{setting.batches} batches of crop {setting.crop}, recomputing {stages}"


def _notes(given: TrainConfig, config: TrainConfig, free_bytes: int, budget_bytes: int) -> Iterator[str]:
    """What a user should know of the settings found."""
    crops = [max(stretch.clip.crop for stretch in stretches_of(one)) for one in (given, config)]
    if crops[0] != crops[1]:
        yield f"no batch fits with crops of {crops[0]}: cut down to {crops[1]}, which changes what is learned"
    if given.network.memory_gb is not None:
        yield f"network.memory_gb={given.network.memory_gb:g} gives way to stages that were measured"
    if given.workers != config.workers:
        yield f"workers={config.workers} instead of {given.workers}, for clips to come fast enough"
    if budget_bytes > free_bytes:
        yield f"the budget is above what is free now, {free_bytes / 1e9:.1f} GB"
