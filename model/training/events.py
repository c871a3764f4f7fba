"""What a training run tells those who listen."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import nn


class Validation(NamedTuple):
    """Mean PSNR in dB over the frames looked at."""

    psnr: float
    frames: int


class Best(NamedTuple):
    """The best validation so far, and after how many steps."""

    step: int
    val_psnr: float


class Milestone(NamedTuple):
    """A state worth a checkpoint.

    Attributes:
        step: steps done.
        loss: of the last one; None if there was none.
        best: the best validation so far.
        is_best: whether this is it.
        skipped, skipped_in_a_row: steps left out so far, and of these the ones since the last that was not.
        look_due: whether validation and pictures of this step are yet to be made, as a request to stop came first.
    """

    step: int
    loss: float | None
    best: Best | None
    is_best: bool
    skipped: int = 0
    skipped_in_a_row: int = 0
    look_due: bool = False


class Seen(NamedTuple):
    """What was learnt from: clips, of all processes, and how many times each of those that there are."""

    clips: int
    epochs: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What is known after a logged step; rates are over the steps since the line before.

    Attributes:
        step: steps done, of `steps`.
        skipped: steps so far that changed nothing because a loss or gradient was not finite.
        steps_per_s, samples_per_s: steps and clips a second, of all processes, without validation and saving.
        data_share: part of that time spent waiting for clips, in [0, 1].
        memory_bytes: most memory allocated on the device; of the process, on a CPU.
        eta_s: seconds left at this rate.
        epoch: how many times every clip was seen.
        validation_share, saving_share: parts of all the time of this session that went to validation (with pictures),
            and to writing checkpoints.
        clips: checksum of the clips that this process learned from in this step, as they came.
    """

    step: int
    steps: int
    loss: float
    charbonnier: float
    perceptual: float
    lr: float
    grad_norm: float
    skipped: int
    steps_per_s: float
    data_share: float
    memory_bytes: int
    eta_s: float
    samples_per_s: float = 0.0
    epoch: float = 0.0
    validation_share: float = 0.0
    saving_share: float = 0.0
    clips: str = ""


class Listener(Protocol):
    """Told what happens; it runs in the main process only."""

    def on_step(self, metrics: StepMetrics) -> None:
        """A step that is logged is done."""

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """The network after `step` steps was validated."""

    def on_saved(self, step: int, is_best: bool) -> None:
        """The state after `step` steps is on disk as a checkpoint."""

    def on_pictures(self, step: int, network: nn.Module) -> None:
        """It is time to show what `network` does after `step` steps."""

    def on_checkpoint(self, step: int) -> None:
        """The state after `step` steps is about to be saved: what was told until now must not be lost any more."""

    def on_skipped(self, step: int, loss: float, grad_norm: float) -> None:
        """Step `step` (from 0) changed nothing, because its loss or gradient was not finite."""

    def recover(self) -> None:
        """What it wrote to failed; it is told something again, and may open anew what it needs."""
