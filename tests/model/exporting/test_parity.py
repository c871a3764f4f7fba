import math

import pytest
import torch

from model.exporting.parity import agree, random_clip, time_both
from model.exporting.standalone import ClipShape, standalone
from pipeline.errors import ParityError

SHAPE = ClipShape(frames=2, height=8, width=8, num_bins=4, scale=2)


def test_a_random_clip_is_the_same_every_time() -> None:
    clip, again = random_clip(SHAPE), random_clip(SHAPE)
    assert torch.equal(clip.blurry, again.blurry) and torch.equal(clip.counts, again.counts)
    assert {name: tuple(x.shape) for name, x in clip.inputs.items()} == SHAPE.inputs
    assert clip.inputs["blurry"].max() <= 1 and clip.inputs["voxels"].max() == 7


@pytest.fixture
def wrong(restorer):
    """A restorer, and a program that is off by so much in one value."""
    made = restorer(scale=2)
    inner = standalone(made)
    made.network.forward = lambda blurry, voxels: 0.5 * blurry

    def off_by(error: float):
        def run(inputs):
            restored = inner(*inputs.values()).detach()
            restored[0, 1, 2, 3, 4] += error
            return restored

        return run

    return made, off_by


def test_finds_the_one_value_that_is_wrong(wrong) -> None:
    made, off_by = wrong
    (found,) = agree(made, off_by(1e-4), [random_clip(SHAPE)], 1e-3)
    assert found.max_difference == pytest.approx(1e-4, rel=0.01)
    assert found.mean_difference == pytest.approx(1e-4 / (2 * 3 * 8 * 8), rel=0.05)
    for error in (0.01, -0.01, math.nan):
        with pytest.raises(
            ParityError, match=r"on the random clip, more than 0\.001 of white; nothing was written"
        ):
            agree(made, off_by(error), [random_clip(SHAPE)], 1e-3)


def test_times_are_taken_in_turns(wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    made, off_by = wrong
    ticks = iter([0, 2, 2, 3, 10, 14, 14, 15, 20, 22, 22, 29])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    timing = time_both(made, off_by(0.0), random_clip(SHAPE), rounds=3)
    assert (timing.network_s, timing.program_s, timing.ratio) == (2, 1, 0.5)
