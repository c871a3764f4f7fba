"""What fills the memory of a training step, and which settings would fit: what a run says when it runs out."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from model.cost import (
    STAGES,
    Activations,
    Flops,
    choose_stages,
    clip_size,
    count_flops,
    effect_of,
    measure_activations,
)
from model.training.config import TrainConfig
from model.training.learner import Learner
from model.training.memory import ADVICE, DeviceUse
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

    Estimates are made here, on tensors that need no memory; that may take a minute.

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
        self._flops: Flops | None = None
        logger.info("out of memory; estimating which settings would fit …")
        self._activations = self._measure(self._place.precision)
        now = self._activations.peak_bytes(stages) if self._activations else None
        self.held = _held(learner, config, num_bins, scale, stages, now)

    @property
    def budget(self) -> int | None:
        """Bytes of activations that would fit; None where nothing is known of the activations.

        Without a device whose size is known, or where the estimate says that there was room, less than there were.
        """
        if self.held.activations is None:
            return None
        if self.use is None:
            return self.held.activations // 2
        room = int((1 - HEADROOM) * self.use.total) - self.use.elsewhere - self.held.fixed
        return min(room, int(0.8 * self.held.activations))

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
        """Settings that fit, the ones that change least first; smaller clips only where nothing else fits."""
        if self._activations is None or self.budget is None or self.budget <= 0:
            return []
        found = list(self._with_all_clips(self._activations))
        if self.config.parallel.precision == "fp32" and (half := self._measure(precision="bf16")):
            found += self._with_all_clips(half, "parallel.precision=bf16 ", "other rounding")
        if found or self.config.phases:
            return found
        return list(self._with_smaller_clips(self._activations))

    def advice(self) -> str:
        """What to do, a line for each remedy."""
        remedies = self.remedies()
        if not remedies:
            return ADVICE
        resumes = remedies[0].resumes
        how = "resume with one of these; a step keeps its clips:" if resumes else "begin a new run with:"
        return "\n".join([how, *(f"  {remedy}" for remedy in remedies)])

    def _with_all_clips(
        self, activations: Activations, setting: str = "", effect: str = ""
    ) -> Iterator[Remedy]:
        """The largest batches that fit, with stages recomputed and without more of them than now."""
        batch = self.config.batch_size
        # Where phases have sizes of their own, the batch stays: one setting does not divide them all.
        least = batch if self.config.phases else 1
        sizes = [size for size in range(batch, least - 1, -1) if batch % size == 0]
        fitting = ((size, self._stages_for(activations, size)) for size in sizes)
        for size, stages in fitting:
            if stages is not None:
                yield self._remedy(activations, size, stages, setting, effect)
                break
        else:
            return
        if len(stages) > len(self._stages):
            for smaller in sizes:
                if smaller < size and self._bytes(activations, smaller, self._stages) <= self._room:
                    yield self._remedy(activations, smaller, self._stages, setting, effect)
                    break

    def _with_smaller_clips(self, activations: Activations) -> Iterator[Remedy]:
        """A crop that fits one at a time with everything recomputed: activations go with its area."""
        step = math.lcm(_CROP_STEP, self._scale)
        share = self._room / self._bytes(activations, 1, tuple(STAGES))
        crop = int(self.config.clip.crop * math.sqrt(share)) // step * step
        if step <= crop < self.config.clip.crop:
            size = int(self._bytes(activations, 1, tuple(STAGES)) * (crop / self.config.clip.crop) ** 2)
            settings = f"clip.crop={crop} {self._batch(1)}network.memory_gb={self._memory_gb:g}"
            yield Remedy(settings=settings, activations=size, effect="smaller clips", resumes=False)

    def _remedy(
        self, activations: Activations, size: int, stages: tuple[int, ...], setting: str, effect: str
    ) -> Remedy:
        assert self._flops
        more = effect_of(activations, stages, self._flops.of("")).extra_flops
        budget = f"network.memory_gb={self._memory_gb:g}" if len(stages) > len(self._stages) else ""
        effects = [*([effect] if effect else []), *([f"+{100 * more:.0f} % FLOPs"] if budget else [])]
        return Remedy(
            settings=f"{setting}{self._batch(size)}{budget}".strip(),
            activations=self._bytes(activations, size, stages),
            effect=", ".join(effects) or "more batches a step",
            resumes=True,
        )

    def _stages_for(self, activations: Activations, size: int) -> tuple[int, ...] | None:
        """The stages to recompute so that batches of `size` fit; None if they cannot."""
        room = self._memory_gb * self.config.batch_size / size  # activations go with the size of the batch
        try:
            return choose_stages(activations, room, self._stages)
        except ConfigError:
            return None

    def _bytes(self, activations: Activations, size: int, stages: tuple[int, ...]) -> int:
        return activations.peak_bytes(stages) * size // self.config.batch_size

    def _batch(self, size: int) -> str:
        """The settings of a batch of `size`, if that is another one; a step takes as many clips as before."""
        batches = self.config.batch_size // size
        return f"batch_size={size} optim.accumulate={self.config.optim.accumulate * batches} " * (batches > 1)

    @property
    def _room(self) -> int:
        return self.budget or 0

    @property
    def _memory_gb(self) -> float:
        digit = 10 ** max(len(str(self._room)) - 3, 0)  # of three, rounded down: it must be little enough
        return self._room // digit * digit / 1e9

    def _measure(self, precision: str) -> Activations | None:
        """The activations of the batch as it is; None where they cannot be estimated."""
        clip = clip_size(self.config, self._num_bins, self._scale)
        try:
            self._flops = self._flops or count_flops(self.config.network, clip, backward=False)
            place = replace(self._place, precision=precision)
            return measure_activations(self.config.network, clip, place, self._flops)
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
    blurry, *told = clip_size(config, num_bins, scale).inputs(config.network, torch.device("meta"))
    return Held(
        weights=sum(tensor.nbytes for tensor in weights),
        gradients=learning,
        moments=2 * learning,
        average=sum(tensor.nbytes for tensor in average),
        batch=2 * blurry.nbytes + sum(tensor.nbytes for tensor in told if tensor is not None),
        activations=activations,
        stages=stages,
    )
