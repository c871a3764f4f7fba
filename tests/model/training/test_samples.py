from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model.training.samples import SamplePictures, side_by_side
from pipeline.clips import Sample


def restore(network: nn.Module, sample: Sample) -> Tensor:
    return torch.full(sample.blurry.shape, 0.2)


def test_shows_the_middle_frame_blurry_restored_and_sharp(tmp_path: Path) -> None:
    blurry = torch.zeros(1, 3, 3, 8, 6, dtype=torch.uint8)
    blurry[:, 1] = 10
    sample = Sample(blurry, torch.zeros(1, 3, 4, 4, 3, dtype=torch.uint8), torch.full_like(blurry, 200))
    shown: list[tuple[int, tuple[int, ...]]] = []
    pictures = SamplePictures(
        tmp_path, sample, restore, lambda step, picture: shown.append((step, picture.shape))
    )
    pictures.on_pictures(30, nn.Identity())
    found = np.asarray(Image.open(tmp_path / "step_000030.png"))
    assert found.shape == (8, 3 * 6 + 2 * 4, 3)
    assert [found[0, column, 0] for column in (0, 5, 6, 10, 15, 16, 20, 25)] == [
        10,
        10,
        255,
        51,
        51,
        255,
        200,
        200,
    ]
    assert shown == [(30, (3, 8, 26))]


def test_side_by_side_puts_white_between() -> None:
    row = side_by_side([np.zeros((3, 2, 2), np.uint8)] * 2)
    assert row.shape == (3, 2, 8) and row[0, 0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]
