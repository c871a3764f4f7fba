"""Every setting of a training run, as `configs/*.yaml` and `RUN/config.yaml` hold them."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from model.lora import LoraConfig
from model.losses import LossConfig
from model.network import NetworkConfig
from model.parallel import ParallelConfig
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """A change of the clips during a run.

    Attributes:
        start: the first step, counted from 0, with clips of this size.
        crop, num_frames: as in `clip`, whose value holds where there is none.
        batch_size: as in the config, whose value holds where there is none.
    """

    start: int
    crop: int | None = None
    num_frames: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("crop", 8), ("num_frames", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} {value} is below {least}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run. Numbers the store knows (bins, statistics, scale) are read from it.

    Attributes:
        store: what to learn from.
        voxels: name of the voxel grids; None takes the only ones there are.
        init: weights to start from: a checkpoint of ours, or a published `.pth`.
        steps: optimisation steps; a cosine without `optim.periods` falls over all of them.
        batch_size: clips a process takes at once.
        phases: other sizes of crop, clip and batch from given steps on. Validation keeps to `clip` in all of them.
        seed: of the initial weights, the clips and everything random.
        workers: threads that read clips.
        log_every, validate_every, checkpoint_every, sample_every: in steps; 0 is never.
        histogram_every: in steps, gradients and updates of every part of the network for TensorBoard; 0 is never.
        sample_clips: clips in a picture of what the network does.
        validate_crop: side in pixels of the centre that is validated; None takes full frames.
        validate_clips: most clips of a sequence that are validated; None takes all.
        max_skipped: steps in a row without a finite loss and gradient that end the run.
        keep_checkpoints: how many of the newest `step_*` stay beside `best` and `last`.
        keep_every: the `step_*` of every so many steps stay for ever; 0 keeps none so.
    """

    store: Path
    voxels: str | None = None
    init: Path | None = None
    steps: int = 300_000
    batch_size: int = 1
    phases: tuple[PhaseConfig, ...] = ()
    seed: int = 0
    workers: int = 2
    log_every: int = 50
    validate_every: int = 5000
    checkpoint_every: int = 1000
    sample_every: int = 5000
    histogram_every: int = 1000
    sample_clips: int = 3
    validate_crop: int | None = 512
    validate_clips: int | None = 4
    keep_checkpoints: int = 2
    keep_every: int = 0
    max_skipped: int = 10
    clip: ClipConfig = field(default_factory=ClipConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "sample_clips", "max_skipped"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        every = ("validate_every", "checkpoint_every", "sample_every", "histogram_every", "keep_every")
        for name in ("seed", "workers", *every):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        for name, least in (("validate_crop", 16), ("validate_clips", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} {value} is below {least} (null sets no limit)")
        starts = [phase.start for phase in self.phases]
        if any(not before < after for before, after in itertools.pairwise(starts)):
            raise ValueError(f"phases start at steps {starts}, which must increase")
        if self.optim.rgb_freeze_steps and (self.init is None or self.network.fusion == "none"):
            raise ValueError(
                f"optim.rgb_freeze_steps {self.optim.rgb_freeze_steps} lets a spike branch settle in trained weights: "
                "it needs init and network.fusion"
            )
        if self.lora.rank and self.init is None:
            raise ValueError(f"lora.rank {self.lora.rank} updates trained weights: init must say which")
