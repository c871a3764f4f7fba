"""What fills the memory of a training step, and which settings would fit: what a run says when it runs out."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from model.cost import (
    Activations,
    Flops,
    choose_stages,
    clip_size,
    count_flops,
    effect_of,
    measure_activations,
)
from model.parallel import Parallel
from model.training.config import TrainConfig
from model.training.learner import Learner
from model.training.memory import DeviceUse
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

HEADROOM = 0.1
"""Share of the device that is left for what is not counted: the loss, and what operators need while they run."""
_CROP_STEP = 16
"""Crops that are proposed are multiples of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What a process keeps on its device during a step, in bytes.

    Attributes:
        weights: with buffers and those of the loss.
        gradients, moments, average: of the weights that learn.
        batch: as it is given to the network.
        activations: an estimate of what is kept for backward; None if it could not be made.
        stages: whose activations are recomputed.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    batch: int
    activations: int | None
    stages: tuple[int, ...]

    @property
    def fixed(self) -> int:
        """All but the activations."""
        return self.weights + self.gradients + self.moments + self.average + self.batch

    def lines(self) -> list[str]:
        """A line each, in GB."""
        how = (
            "none recomputed" if not self.stages else f"recomputed: stages {', '.join(map(str, self.stages))}"
        )
        estimate = self.activations
        return [
            _line("weights", self.weights),
            _line("gradients", self.gradients),
            _line("optimizer moments", self.moments),
            _line("averaged weights", self.average),
            _line("batch", self.batch),
            *([_line("activations", estimate, f"estimated; {how}")] if estimate is not None else []),
        ]


def _line(name: str, size: int, note: str = "") -> str:
    return f"  {name:<18}{size / 1e9:9.3f} GB  {note}".rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """Settings that need less.

    Attributes:
        settings: as on the command line.
        activations: estimated bytes of activations with them.
        effect: what else they change.
        resumes: whether the run can go on with them.
    """

    settings: str
    activations: int
    effect: str
    resumes: bool

    def __str__(self) -> str:
        return f"{self.settings}  ({self.activations / 1e9:.3g} GB of activations, {self.effect})"


class MemoryReport:
    """Explains a shortage of memory.

    Estimates are made here, on tensors that need no memory; it takes some seconds.

    Args:
        learner: holds the weights.
        config: of the run.
        num_bins, scale: of the voxel grids.
        stages: whose activations were recomputed.
        use: of the device when it was full; None without a device.
    """

    def __init__(
        self,
        learner: Learner,
        config: TrainConfig,
        num_bins: int,
        scale: int,
        stages: tuple[int, ...],
        use: DeviceUse | None,
    ) -> None:
        self.config = config
        self.use = use
        self._num_bins, self._scale, self._stages = num_bins, scale, stages
        self._place = learner.place
        estimate = self._estimate(config)
        self._activations, self._flops = estimate or (None, None)
        now = self._activations.peak_bytes(stages) if self._activations else None
        self.held = _held(learner, config, num_bins, scale, stages, now)

    @property
    def budget(self) -> int | None:
        """Bytes of activations that would fit; None where nothing is known of the activations.

        Without a device whose size is known, or where the estimate says that there was room, less than there were.
        """
        if self.held.activations is None:
            return None
        less = self.held.activations // 2 if self.use is None else int(0.8 * self.held.activations)
        if self.use is None:
            return less
        room = int((1 - HEADROOM) * self.use.total) - self.use.elsewhere - self.held.fixed
        return min(room, less)

    def lines(self) -> list[str]:
        """What there is, a line each."""
        lines = self.held.lines()
        if use := self.use:
            unused = use.reserved - use.allocated
            lines += [
                _line("in use here", use.allocated, f"and {unused / 1e9:.3g} GB set aside in pieces"),
                _line("elsewhere", use.elsewhere, "held by CUDA and other processes; nvidia-smi lists them"),
                _line("device", use.total, f"{use.free / 1e9:.3g} GB of it free"),
            ]
            if unused > HEADROOM * use.total:
                lines.append("  many pieces: PYTORCH_ALLOC_CONF=expandable_segments:True joins them")
        return lines

    def remedies(self) -> list[Remedy]:
        """Settings that fit, the ones that change least first."""
        if self.budget is None:
            return []
        return [remedy for remedy in self._candidates() if remedy.activations <= self.budget]

    def advice(self) -> str:
        """What to do, a line for each remedy."""
        remedies = self.remedies()
        resumable = [f"  {remedy}" for remedy in remedies if remedy.resumes]
        others = [f"  {remedy}" for remedy in remedies if not remedy.resumes]
        if not remedies:
            return (
                "lower clip.crop or clip.num_frames, or batch_size with optim.accumulate raised to match, or use "
                "parallel.precision=bf16, or give a budget of saved activations, network.memory_gb=…"
            )
        return "\n".join(
            [
                *(
                    ["resume with one of these, which leave the clips of a step as they are:"]
                    * bool(resumable)
                ),
                *resumable,
                *(["begin a new run with:"] * bool(others)),
                *others,
            ]
        )

    def _candidates(self) -> Iterator[Remedy]:
        config, budget = self.config, self.budget
        assert self._activations and self._flops and self.held.activations and budget is not None
        with_budget = self._with_budget(budget)
        if with_budget:
            yield with_budget
        for part in range(2, config.batch_size + 1):
            if config.batch_size % part == 0:
                batch, accumulate = config.batch_size // part, config.optim.accumulate * part
                size = self.held.activations // part
                settings = f"batch_size={batch} optim.accumulate={accumulate}"
                yield Remedy(settings=settings, activations=size, effect="as many clips a step", resumes=True)
                if size <= budget:
                    break
        if config.parallel.precision == "fp32":
            half = self._estimate(config, replace(self._place, precision="bf16"))
            if half:
                size = half[0].peak_bytes(self._stages)
                yield Remedy(
                    settings="parallel.precision=bf16",
                    activations=size,
                    effect="other rounding",
                    resumes=True,
                )
        step = math.lcm(_CROP_STEP, self._scale)
        crop = int(config.clip.crop * min((budget / self.held.activations) ** 0.5, 1)) // step * step
        if max(budget, 0) and crop >= step:
            smaller = self._estimate(replace(config, clip=replace(config.clip, crop=crop)))
            if smaller:
                size = smaller[0].peak_bytes(self._stages)
                yield Remedy(
                    settings=f"clip.crop={crop}", activations=size, effect="smaller clips", resumes=False
                )

    def _with_budget(self, budget: int) -> Remedy | None:
        assert self._activations and self._flops
        memory_gb = math.floor(budget / 1e7) / 100  # rounded down: it must be little enough
        try:
            stages = choose_stages(self._activations, memory_gb, self.config.network.checkpoint_stages)
        except ConfigError:
            return None
        effect = effect_of(self._activations, stages, self._flops.of(""))
        return Remedy(
            settings=f"network.memory_gb={memory_gb:g}",
            activations=effect.bytes,
            effect=f"+{100 * effect.extra_flops:.0f} % FLOPs",
            resumes=True,
        )

    def _estimate(
        self, config: TrainConfig, place: Parallel | None = None
    ) -> tuple[Activations, Flops] | None:
        clip = clip_size(config, self._num_bins, self._scale)
        try:
            flops = count_flops(config.network, clip, backward=False)
            return measure_activations(config.network, clip, place or self._place, flops), flops
        except Exception as error:  # whatever it is, the shortage is what has to be told
            logger.debug("the activations cannot be estimated: %s", error)
            return None


def _held(
    learner: Learner,
    config: TrainConfig,
    num_bins: int,
    scale: int,
    stages: tuple[int, ...],
    activations: int | None,
) -> Held:
    network = learner.network
    weights = [*network.parameters(), *network.buffers(), *learner.loss.parameters()]
    learning = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    average = learner.average.network.parameters() if learner.average else ()
    blurry, voxels = clip_size(config, num_bins, scale).inputs(config.network, torch.device("meta"))
    return Held(
        weights=sum(tensor.nbytes for tensor in weights),
        gradients=learning,
        moments=2 * learning,
        average=sum(tensor.nbytes for tensor in average),
        batch=2 * blurry.nbytes + (voxels.nbytes if voxels is not None else 0),
        activations=activations,
        stages=stages,
    )
