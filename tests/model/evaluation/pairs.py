"""A sharp frame and one that was restored badly, the same on every machine: made by integer arithmetic alone."""

import torch
from torch import Tensor

from model.evaluation.shots import Candidate, Shot
from model.metrics import to_rgb8


def frames(height: int = 40, width: int = 53) -> tuple[Tensor, Tensor]:
    """Bands (3, H, W) uint8 from 0 to 255, and them with errors of up to 0.11 that leave [0, 1] here and there."""
    channel, y, x = torch.meshgrid(*(torch.arange(n) for n in (3, height, width)), indexing="ij")
    sharp = ((x * x + 3 * y * y + x * y) // 8 + 40 * channel) % 256
    errors = (37 * x + 91 * y + 17 * channel) % 23 - 11
    return sharp.to(torch.uint8), ((100 * sharp + 255 * errors).double() / 25500).float()


def shot(sharp: Tensor, before: Tensor | None = None) -> Shot:
    counts = torch.zeros(1, *sharp.shape[-2:], dtype=torch.uint8)
    return Shot(
        blurry=sharp, sharp=sharp, before=before, counts=counts, frames_per_bin=(1,), instant=0.5, scale=1
    )


def candidate(image: Tensor, before: Tensor | None = None) -> Candidate:
    return Candidate(image=image, rgb8=to_rgb8(image), before=before)
