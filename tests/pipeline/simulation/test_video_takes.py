"""Splitting a user's sources into sequences, and the light of each."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.textures import random_texture
from pipeline.simulation.video_takes import VideoConfig, video_takes
from pipeline.simulation.views import View, look

RIG = RigConfig(num_frames=2, exposure_frames=16, gap_frames=4, rate_hz=Fraction(1600), scale=2)
"""44 spike frames, 27.5 ms; exposures of 10 ms."""


class Panning:
    """A camera that moves `step` pixels to the right from frame to frame."""

    def __init__(
        self, length: int, *, step: float = 0.5, name: str = "pan", rate_hz: Fraction | None = None
    ) -> None:
        self.path, self.length, self.step, self.rate_hz = Path(name), length, step, rate_hz
        self.texture = random_texture(np.random.default_rng(0), 512, shapes=150)

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        for frame in range(start, stop):
            view = View(*(np.array([value]) for value in (2 * self.step * frame, 100.0, 0.0, 2.0)))
            yield np.round(look(self.texture, view, (82, 101))[:, 0] * 255).astype(np.uint8)


def splits_of(takes) -> list[str]:
    return [take.split for take in takes]


def test_stills_of_one_source_are_split_in_order_and_share_no_frame():
    takes = video_takes([Panning(20)], VideoConfig())
    assert splits_of(takes) == ["train"] * 16 + ["val"] * 2 + ["test"] * 2
    assert len({take.sequence for take in takes}) == 20


def test_every_takes_every_nth_frame():
    takes = video_takes([Panning(20)], VideoConfig(every=7, split="test"))
    assert [take.frame for take in takes] == [0, 7, 14] and set(splits_of(takes)) == {"test"}


def test_with_three_sources_no_two_splits_share_one():
    takes = video_takes([Panning(4, name=name) for name in "abc"], VideoConfig())
    assert splits_of(takes) == ["train"] * 4 + ["val"] * 4 + ["test"] * 4


def test_large_shares_leave_something_in_every_split():
    takes = video_takes([Panning(3)], VideoConfig(val_share=0.45, test_share=0.45))
    assert splits_of(takes) == ["train", "val", "test"]


def test_refuses_too_few_sequences_for_three_splits():
    with pytest.raises(UsageError, match="2 sequences cannot fill") as caught:
        video_takes([Panning(2)], VideoConfig())
    assert "split=test" in caught.value.fix


def test_stills_are_filmed_in_the_largest_view_that_can_move():
    config = VideoConfig(split="train", reduce=1, speed=(2.0, 4.0), rig=RIG)
    footage = video_takes([Panning(1)], config)[0].footage(np.random.default_rng(0))
    # 82 - 2 * 4 - 8 - 101 // 20 = 61 and 101 - 16 - 5 = 80, in steps of 8 spike pixels
    assert (footage.height, footage.width) == (48, 80)
    assert footage.render(np.array([0.5])).shape == (1, 3, 48, 80)


def test_refuses_stills_too_small_for_the_view():
    config = VideoConfig(split="train", reduce=4, rig=RIG)
    with pytest.raises(UsageError, match="pan frame 0: 82x101 pixels are too few"):
        video_takes([Panning(1)], config)[0].footage(np.random.default_rng(0))


def test_recordings_are_cut_into_pieces_that_share_no_frame():
    config = VideoConfig(motion="recorded", fps=Fraction(1000), split="train", rig=RIG)
    takes = video_takes([Panning(90)], config)
    # 27.5 ms at 1000 fps: 28 intervals, 29 frames
    assert [(take.start, take.stop) for take in takes] == [(0, 29), (29, 58), (58, 87)]


def test_recordings_are_cropped_to_the_middle_and_reduced():
    config = VideoConfig(motion="recorded", fps=Fraction(1000), split="train", height=32, width=48, rig=RIG)
    source = Panning(29)
    footage = video_takes([source], config)[0].footage(np.random.default_rng(0))
    first = next(source.read(0, 1)).astype(float)
    block = first[:, 9:11, 2:4].mean(
        axis=(1, 2)
    )  # (82 - 64) // 2 rows and (101 - 96) // 2 columns are cut away
    assert np.allclose(footage.render(np.zeros(1))[0, :, 0, 0] * 255, block, atol=0.51)
    assert footage.frames.shape == (29, 3, 32, 48)


def test_a_recording_plays_at_its_rate():
    config = VideoConfig(motion="recorded", fps=Fraction(1000), reduce=1, split="train", rig=RIG)
    source = Panning(29)
    footage = video_takes([source], config)[0].footage(np.random.default_rng(0))
    # an exposure of 10 ms is 10 frames; the default view is 80x96 of 82x101
    expected = next(source.read(10, 11))[:, 1:81, 2:98]
    assert np.allclose(footage.render(np.ones(1))[0] * 255, expected, atol=1e-3)


def test_the_rate_of_a_video_is_used_unless_another_is_given():
    config = VideoConfig(motion="recorded", split="train", rig=RIG)
    (take,) = video_takes([Panning(40, rate_hz=Fraction(1000))], config)
    assert take.fps == 1000


@pytest.mark.parametrize(
    ("source", "fps", "message", "fix"),
    [
        (Panning(90), None, "does not say its frame rate", "fps=960"),
        (Panning(90), Fraction(240), "2.40 frames at 240 fps", "rig.exposure_frames=27"),
        (Panning(28), Fraction(1000), "28 frames, a sequence of 2 exposures takes 29", "rig.num_frames"),
    ],
)
def test_refuses_recordings_that_are_too_slow_or_too_short(source, fps, message, fix):
    with pytest.raises(UsageError, match=message) as caught:
        video_takes([source], VideoConfig(motion="recorded", fps=fps, split="train", rig=RIG))
    assert fix in caught.value.fix


def test_refuses_recordings_that_move_too_fast():
    config = VideoConfig(motion="recorded", fps=Fraction(1000), reduce=1, split="train", rig=RIG)
    with pytest.raises(UsageError, match="ghosts"):
        video_takes([Panning(29, step=3.0)], config)[0].footage(np.random.default_rng(0))


def test_refuses_frames_of_different_sizes():
    class Growing(Panning):
        def read(self, start, stop):
            return (np.zeros((3, 64 + 16 * (n > 3), 64), np.uint8) for n in range(start, stop))

    config = VideoConfig(motion="recorded", fps=Fraction(1000), split="train", rig=RIG)
    with pytest.raises(UsageError, match="different sizes"):
        video_takes([Growing(29)], config)[0].footage(np.random.default_rng(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"reduce": 0},
        {"every": 0},
        {"speed": (0.0, 3.0)},
        {"speed": (5.0, 3.0)},
        {"fps": Fraction(0)},
        {"max_step": 3.0},
        {"val_share": -0.1},
        {"val_share": 0.5, "test_share": 0.5},
        {"height": 31, "width": 32, "rig": RIG},
    ],
)
def test_refuses_impossible_settings(wrong):
    with pytest.raises(ValueError, match=r"expected|must be|leave|beyond|divided"):
        VideoConfig(**wrong)
