"""Frames of a sequence, restored by several networks side by side and scored."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from model.evaluation.judge import Entrant, judge_sequence
from model.metrics import psnr, ssim
from model.tiling import Tiling


def recording(sharp_index: int = 16) -> SimpleNamespace:
    """Two frames of 16 x 24 with spikes at half size; frame 1 has no sharp frame."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (2, 8, 8, 12), dtype=np.uint8)
    return SimpleNamespace(
        name="seq",
        frames=("a", "b"),
        blurry=rng.integers(0, 256, (2, 3, 16, 24), dtype=np.uint8),
        sharp=rng.integers(0, 256, (2, 3, 16, 24), dtype=np.uint8),
        exposure=np.array([[0, 32], [40, 72]]),
        sharp_index=np.array([sharp_index, -1]),
        has_sharp=np.array([True, False]),
        runs=((0, 2),),
        voxels=lambda name: counts,
    )


class Restoring:
    """A function as a network that is told no instants."""

    takes_instants = False

    def __init__(self, restore: Callable[..., Tensor]) -> None:
        self.restore = restore

    def __call__(self, blurry: Tensor, counts: Tensor | None) -> Tensor:
        return self.restore(blurry, counts)


class Telling(Restoring):
    """A network that restores the instants it is told as grey levels."""

    takes_instants = True

    def __call__(self, blurry: Tensor, counts: Tensor | None, instants: Tensor) -> Tensor:
        return instants[..., None, None, None].expand(blurry.shape)


def invert(blurry: Tensor, counts: Tensor | None) -> Tensor:
    return 1 - blurry / 255


def judged(sequence: SimpleNamespace, restorer: Callable[..., Tensor] = invert) -> list:
    told = restorer if isinstance(restorer, Restoring) else Restoring(restorer)
    restore = SimpleNamespace(restorer=told, voxels=None, tiling=Tiling())
    assert {"restorer", "voxels", "tiling"} == set(Entrant.__slots__)
    entrants = {"restored": restore, "other": restore}
    return list(judge_sequence(sequence, entrants, "k8", 2, torch.device("cpu")))


def test_every_method_is_pictured_and_scored_against_the_sharp_frame():
    sequence = recording()
    first, second = judged(sequence)
    assert list(first.images) == ["blurry", "restored", "other", "spike_only", "sharp", "spikes"]
    assert [score.method for score in first.scores] == ["blurry", "restored", "other", "spike_only"]
    assert torch.equal(first.images["restored"], 255 - torch.from_numpy(sequence.blurry[0]))
    sharp = torch.from_numpy(sequence.sharp[0])
    for score in first.scores:
        image = first.images[score.method]
        assert (score.psnr, score.ssim) == (psnr(image, sharp).item(), ssim(image, sharp).item())
    assert first.psnr == first.scores[1].psnr
    assert (second.frame, second.index) == ("b", 1)


def test_a_frame_without_a_sharp_one_is_restored_but_not_scored():
    second = judged(recording())[1]
    assert list(second.images) == ["blurry", "restored", "other", "spike_only", "spikes"]
    assert second.scores == () and second.psnr is None


def test_frames_on_the_two_sides_of_a_gap_do_not_see_each_other():
    def mean_of_clip(blurry: Tensor, counts: Tensor | None) -> Tensor:
        return (blurry / 255).mean(dim=1, keepdim=True).expand_as(blurry)

    sequence = recording()
    first, second = sequence.blurry.astype(np.float64)
    both = [torch.from_numpy(np.rint((first + second) / 2).astype(np.uint8))] * 2
    for runs, wanted in ((((0, 2),), both), (((0, 1), (1, 2)), [*torch.from_numpy(sequence.blurry)])):
        sequence.runs = runs
        found = [frame.images["restored"].int() for frame in judged(sequence, mean_of_clip)]
        assert len(found) == 2
        assert all((a - b.int()).abs().max() <= 1 for a, b in zip(found, wanted, strict=True))  # ties
    assert (both[0].int() - torch.from_numpy(sequence.blurry[0]).int()).abs().max() > 50


def test_the_spike_only_estimate_looks_at_the_sharp_instant_but_never_at_the_sharp_frame():
    sequence = recording()
    before = judged(sequence)[0].images["spike_only"]
    sequence.sharp = 255 - sequence.sharp
    assert torch.equal(judged(sequence)[0].images["spike_only"], before)
    assert not torch.equal(judged(recording(sharp_index=4))[0].images["spike_only"], before)


def test_the_spikes_are_shown_at_the_size_of_the_frames():
    preview = judged(recording())[0].images["spikes"]
    assert preview.shape == (3, 16, 24) and preview.dtype == torch.uint8
    assert torch.equal(preview[:, ::2, ::2], preview[:, 1::2, 1::2])


def test_a_network_is_asked_for_the_instants_of_the_sharp_frames_and_the_middle_where_there_is_none():
    first, second = judged(recording(sharp_index=3), Telling(invert))
    for frame, instant in ((first, 3.5 / 32), (second, 0.5)):
        assert (frame.images["restored"] == round(255 * instant)).all()
