"""What training minimises: distance in pixels and distance in looks."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.vgg import LAYERS, VggPerceptual


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights of the terms.

    Attributes:
        charbonnier_weight: weight of the pixel term.
        charbonnier_delta: delta in mean(sqrt(d^2 + delta^2)), for pixels in [0, 1].
        perceptual_weight: weight of the VGG16 term; 0 leaves it out and needs no weights.
        perceptual_layers: activations compared, by name.
        vgg_weights: file with the VGG16 weights; without one the torch hub cache is searched.

    Raises:
        ValueError: naming the field and its value.
    """

    charbonnier_weight: float = 1.0
    charbonnier_delta: float = 1e-3
    perceptual_weight: float = 0.1
    perceptual_layers: tuple[str, ...] = ("relu3_3",)
    vgg_weights: Path | None = None

    def __post_init__(self) -> None:
        if min(self.charbonnier_weight, self.perceptual_weight) < 0:
            raise ValueError("loss weights must not be negative")
        if self.charbonnier_weight + self.perceptual_weight == 0:
            raise ValueError(
                "charbonnier_weight and perceptual_weight are both 0: there is nothing to minimise"
            )
        if not self.charbonnier_delta > 0:
            raise ValueError(f"charbonnier_delta {self.charbonnier_delta} is not positive")
        unknown = [name for name in self.perceptual_layers if name not in LAYERS]
        if unknown or not self.perceptual_layers:
            raise ValueError(
                f"perceptual_layers {self.perceptual_layers!r} are not some of {', '.join(LAYERS)}"
            )


class LossTerms(NamedTuple):
    """Scalars: what is minimised, and the unweighted terms it is made of (0 for one that is left out)."""

    total: Tensor
    charbonnier: Tensor
    perceptual: Tensor


def charbonnier(restored: Tensor, sharp: Tensor, delta: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + delta^2) over all elements, in float32 (Charbonnier et al., 1994)."""
    difference = restored.float() - sharp.float()
    return torch.sqrt(difference * difference + delta * delta).mean()


class CombinedLoss(nn.Module):
    """The weighted sum of the terms with a weight.

    Raises:
        CheckpointError: the perceptual term is wanted and its weights are not found.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.perceptual: VggPerceptual | None = None
        if config.perceptual_weight:
            self.perceptual = VggPerceptual(config.perceptual_layers, config.vgg_weights)

    def forward(self, restored: Tensor, sharp: Tensor) -> LossTerms:
        """Compare (B, T, 3, H, W) batches in [0, 1]."""
        pixels = charbonnier(restored, sharp, self.config.charbonnier_delta)
        if self.perceptual is None:
            return LossTerms(self.config.charbonnier_weight * pixels, pixels, torch.zeros_like(pixels))
        looks = self.perceptual(restored, sharp)
        total = self.config.charbonnier_weight * pixels + self.config.perceptual_weight * looks
        return LossTerms(total, pixels, looks)
