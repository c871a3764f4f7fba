"""Settings of an evaluation that make no sense are refused."""

from pathlib import Path
from typing import Any

import pytest

from model.evaluation.config import EvaluateConfig


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"protocols": ("nonesuch",)}, "protocols .'nonesuch'"),
        ({"protocols": ("lpips-vgg",)}, "lpips-vgg needs weights"),
        ({"lpips_weights": (Path("vgg.pth"),)}, "lpips_weights is set"),
        ({"pictures": 0}, "pictures 0"),
        ({"tile": 20}, "tile 20"),
        ({"ablate": ("spikes=noise",)}, "ablate 'spikes=noise': expected one of spikes=zero"),
        ({"thresholds": (0,)}, "threshold 0: expected 1 to 255"),
        ({"tile": 32}, "overlap 32"),
        ({"num_frames": 4, "overlap_frames": 3}, "overlap_frames 3"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        EvaluateConfig(**settings)


def test_clips_are_as_long_as_in_training_unless_told_otherwise() -> None:
    assert EvaluateConfig().tiling(6).num_frames == 6
    assert (EvaluateConfig().tiling(3).num_frames, EvaluateConfig().tiling(3).overlap_frames) == (3, 1)
    assert EvaluateConfig(num_frames=12, overlap_frames=4).tiling(6).num_frames == 12
