"""Settings of a restoration that make no sense are refused."""

import pytest

from model.deblurring.config import DeblurConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tile": 30}, "tile 30"),
        ({"fps": 0}, "fps 0"),
        ({"num_frames": 2, "overlap_frames": 2}, "overlap_frames"),
    ],
)
def test_refuses_settings_that_cannot_work(settings, words):
    with pytest.raises(ValueError, match=words):
        DeblurConfig(**settings)
