"""The memory that a training step will need, foretold before it is tried, and better after one was."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from model.cost import choose_stages
from model.planning.survey import ClipNeeds
from pipeline.errors import ConfigError

_MOMENTS = 2
"""Numbers that the optimizer keeps of every parameter that learns."""
_FLOAT_BYTES = 4
_GROWTH = 1.3
"""Memory over that of the activations which the forward keeps, before it was measured: what backward makes and drops
again, and what the allocator cannot use."""
_GROWTHS = 1.0, 2.0
"""What it may be; anything beyond comes from measurements too close to each other."""
_APART = 1.5
"""How much more activations one measurement must have than another to tell the growth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to take a step's clips.

    Attributes:
        batches: that they are taken in.
        crop: most pixels along a side of a clip.
        checkpoint_stages: stages whose activations are recomputed.
    """

    batches: int
    crop: int
    checkpoint_stages: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Memory as a sum: what is there in any case, and the activations of a batch times their growth.

    Attributes:
        needs: of each size of clip that the run has.
        parameters: of the network.
        trainable: those of them that learn.
        averaged: whether averaged weights are kept.
        idle_bytes: of the process without a network.
        measured: activations, as counted, and peak memory of steps that were done, in bytes.
    """

    needs: tuple[ClipNeeds, ...]
    parameters: int
    trainable: int
    averaged: bool
    idle_bytes: int = 0
    measured: tuple[tuple[float, int], ...] = ()

    def bytes(self, setting: Setting) -> int:
        """The most memory of a step."""
        return round(self._constant + self._growth * self._activations(setting))

    def extra_flops(self, setting: Setting) -> float:
        """FLOPs that recomputation adds to a step, as a share of it, where the step is largest."""
        largest = self._largest
        return largest.activations.recomputed_flops(setting.checkpoint_stages) / (3 * largest.forward_flops)

    def cheapest(self, setting: Setting, budget_bytes: int, always: Collection[int] = ()) -> Setting | None:
        """`setting` with those stages whose recomputation costs least and keeps within a budget; None if none do.

        Args:
            always: stages that are recomputed in any case.
        """
        largest = self._largest
        times = self._growth * _clips(largest, setting) * _pixels(largest, setting)
        try:
            stages = choose_stages(largest.activations, (budget_bytes - self._constant) / times / 1e9, always)
        except ConfigError:  # no set of them does
            return None
        return replace(setting, checkpoint_stages=stages)

    def after(self, setting: Setting, peak_bytes: int) -> "Demand":
        """What is foretold once a step with `setting` took so much memory."""
        return replace(self, measured=(*self.measured, (self._activations(setting), peak_bytes)))

    @property
    def _fixed(self) -> int:
        """Weights, gradients, moments and averages, and the process itself."""
        numbers = self.parameters + (1 + _MOMENTS + self.averaged) * self.trainable
        return self.idle_bytes + _FLOAT_BYTES * numbers

    @property
    def _growth(self) -> float:
        """Bytes for each byte of activations: from the least and the most measured, where they are apart."""
        if self.measured:
            (few, low), (many, high) = min(self.measured), max(self.measured)
            if many >= _APART * few:
                return min(max((high - low) / (many - few), _GROWTHS[0]), _GROWTHS[1])
        return _GROWTH

    @property
    def _constant(self) -> float:
        """Bytes without activations: so many that no measurement was above what is foretold for it."""
        return max((peak - self._growth * kept for kept, peak in self.measured), default=self._fixed)

    @property
    def _largest(self) -> ClipNeeds:
        return max(self.needs, key=lambda need: need.clips * need.activations.peak_bytes())

    def _activations(self, setting: Setting) -> float:
        """What a batch keeps for backward at most, in bytes."""
        return max(
            _clips(need, setting)
            * _pixels(need, setting)
            * need.activations.peak_bytes(setting.checkpoint_stages)
            for need in self.needs
        )


def _clips(need: ClipNeeds, setting: Setting) -> float:
    """Clips of a batch."""
    return need.clips / setting.batches


def _pixels(need: ClipNeeds, setting: Setting) -> float:
    """Pixels of a clip that is cut down to the setting's crop, over those that it has."""
    return min(setting.crop / need.clip.crop, 1.0) ** 2
