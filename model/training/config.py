"""Every setting of a training run, as `configs/*.yaml` and `RUN/config.yaml` hold them."""

from dataclasses import dataclass, field
from pathlib import Path

from model.losses import LossConfig
from model.network import NetworkConfig
from model.parallel import ParallelConfig
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run. Numbers the store knows (bins, statistics, scale) are read from it.

    Attributes:
        store: what to learn from.
        voxels: name of the voxel grids; None takes the only ones there are.
        init: weights to start from: a checkpoint of ours, or a published `.pth`.
        steps: optimisation steps; the learning rate falls over all of them.
        batch_size: clips a process takes at once.
        seed: of the initial weights, the clips and everything random.
        workers: threads that read clips.
        log_every, validate_every, checkpoint_every, sample_every: in steps; 0 is never.
        validate_crop: side in pixels of the centre that is validated; None takes full frames.
        validate_clips: most clips of a sequence that are validated; None takes all.
        max_skipped: steps in a row without a finite loss and gradient that end the run.
        keep_checkpoints: how many `step_*` stay beside `best` and `last`.
    """

    store: Path
    voxels: str | None = None
    init: Path | None = None
    steps: int = 300_000
    batch_size: int = 1
    seed: int = 0
    workers: int = 2
    log_every: int = 50
    validate_every: int = 5000
    checkpoint_every: int = 1000
    sample_every: int = 5000
    validate_crop: int | None = 512
    validate_clips: int | None = 4
    keep_checkpoints: int = 2
    max_skipped: int = 10
    clip: ClipConfig = field(default_factory=ClipConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "max_skipped"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        for name in ("seed", "workers", "validate_every", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        for name, least in (("validate_crop", 16), ("validate_clips", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} {value} is below {least} (null sets no limit)")
