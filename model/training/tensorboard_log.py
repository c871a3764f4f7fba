"""A run in TensorBoard: curves, histograms over the parts of the network, pictures, the config."""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from model.training.events import Listener, StepMetrics, Validation
from model.training.layer_watch import LayerStats

_SPACE_BYTES = 1 << 20
"""Free space with which it is worth a try to write curves again."""


class TensorBoardLog(Listener):
    """Writes for TensorBoard.

    Args:
        folder: of the event files.
        start: steps already done; what a killed run wrote after them is hidden.
        config: the settings of the run as YAML text, shown under "text".
        rates: the learning rates of now, by the name of their group of parameters.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        *,
        config: str = "",
        rates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.rates = rates
        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        if config:
            self._writer.add_text("config", f"```yaml\n{config}```", start)

    def recover(self) -> None:
        """Begin another file: a writer that failed once fails for good.

        Raises:
            OSError: there is no space for one.
        """
        if shutil.disk_usage(self._folder).free < _SPACE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self.close()
        self._writer = SummaryWriter(str(self._folder))

    def on_step(self, metrics: StepMetrics) -> None:
        """Write the curves of a step."""
        for name in ("loss", "charbonnier", "perceptual", "lr", "grad_norm", "skipped", "epoch"):
            self._writer.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)
        for name, rate in self.rates().items():
            self._writer.add_scalar(f"lr/{name}", rate, metrics.step)
        for name in ("steps_per_s", "samples_per_s", "data_share", "memory_bytes"):
            self._writer.add_scalar(f"speed/{name}", getattr(metrics, name), metrics.step)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Write the validation curve."""
        self._writer.add_scalar("val/psnr", validation.psnr, step)

    def show(self, step: int, picture: npt.NDArray[np.uint8]) -> None:
        """Write a picture, uint8 (3, H, W)."""
        self._writer.add_image("blurry | restored | sharp | spikes", picture, step)

    def show_layers(self, step: int, layers: LayerStats) -> None:
        """Write histograms, over the parameters of each part, of the powers of ten: the values span many of them."""
        kinds = (("gradient norm", layers.grad_norms), ("update over weight", layers.updates))
        for kind, parts in kinds:
            for part, values in parts.items():
                powers = _powers_of_ten(values)
                if powers:
                    self._writer.add_histogram(f"{kind}, log10/{part}", np.array(powers), step)

    def close(self) -> None:
        """Write what is left, if it can be written: the curves are not worth an error at the end of a run."""
        with contextlib.suppress(OSError):
            self._writer.close()


def _powers_of_ten(values: Sequence[float]) -> list[float]:
    """Of those that have one: nothing is said of a zero, an infinity or a NaN."""
    return [math.log10(value) for value in values if 0 < value < math.inf]
