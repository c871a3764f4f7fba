"""Frames of a sequence, restored by several networks side by side and scored."""

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.evaluation.judge import judge_sequence
from model.evaluation.lineup import Entrant, Lineup
from model.evaluation.protocols import PROTOCOLS
from model.metrics import psnr, ssim
from model.tiling import Tiling
from pipeline.ablated_voxels import NoSpikes, OtherFrames
from pipeline.ablations import ChangedSpikes


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


def long_recording(num_frames: int) -> SimpleNamespace:
    """Sharp frames all the way, the same in pairs."""
    sequence = recording()
    made = {name: np.repeat(getattr(sequence, name), num_frames // 2, axis=0) for name in ("blurry", "sharp")}
    exposure = 40 * np.arange(num_frames)[:, None] + [0, 32]
    counts = np.repeat(sequence.voxels("k8"), num_frames // 2, axis=0)
    return SimpleNamespace(
        name="seq",
        frames=tuple(f"{i:03d}" for i in range(num_frames)),
        **made,
        exposure=exposure,
        sharp_index=exposure[:, 0] + 16,
        has_sharp=np.ones(num_frames, dtype=bool),
        runs=((0, num_frames),),
        voxels=lambda name: counts,
    )


def lineup(entrants: dict[str, Entrant], **settings: Any) -> Lineup:
    return Lineup(entrants=entrants, voxels="k8", scale=2, device=torch.device("cpu"), **settings)


def judged(
    sequence: SimpleNamespace,
    restorer: Callable[..., Tensor] = invert,
    protocols: tuple[str, ...] = ("rgb8-all",),
) -> list:
    told = restorer if isinstance(restorer, Restoring) else Restoring(restorer)
    restore = Entrant(restorer=told, voxels=None, tiling=Tiling())
    entrants = {"restored": restore, "other": restore}
    chosen = [PROTOCOLS[name] for name in protocols]
    return list(judge_sequence(sequence, lineup(entrants, protocols=chosen)))


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


def test_change_is_told_of_every_frame_but_the_first_of_a_run():
    sequence = long_recording(6)
    sequence.runs = ((0, 2), (2, 6))
    sequence.has_sharp[4] = False
    found = {
        frame.index: [score.values["psnr_change"] for score in frame.scores]
        for frame in judged(sequence, protocols=("rgb8-change",))
    }
    undefined = {index for index, values in found.items() if all(map(math.isnan, values))}
    assert undefined == {0, 2, 4, 5}  # 2 begins a run, 4 has no sharp frame, and 5 follows it
    restored, blurry = sequence.blurry[3].astype(int), sequence.blurry[2].astype(int)
    error = (restored - blurry) + (sequence.sharp[3].astype(int) - sequence.sharp[2])  # inverted
    assert found[3][1] == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), rel=1e-12)


def test_a_protocol_scores_only_the_frames_it_takes():
    frames = judged(long_recording(54), protocols=("rgb8-all", "shiftnet-48"))
    scored = {frame.index for frame in frames if any(s.protocol == "shiftnet-48" for s in frame.scores)}
    assert scored == set(range(2, 50))
    assert all(any(s.protocol == "rgb8-all" for s in frame.scores) for frame in frames)


def test_frames_are_let_go_as_soon_as_they_are_scored():
    restore = Entrant(restorer=Restoring(invert), voxels=None, tiling=Tiling(num_frames=4, overlap_frames=2))
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    for frame in judge_sequence(
        long_recording(40), lineup({"restored": restore}, protocols=tuple(PROTOCOLS.values()))
    ):
        alive.append(weakref.ref(frame.images["restored"]))
        del frame
        most = max(most, sum(kept() is not None for kept in alive))
    assert most <= 2  # one more is kept, to compare the next with


def brightness_of_spikes(blurry: Tensor, counts: Tensor | None) -> Tensor:
    """Every frame filled with the mean count of its own spikes, over 10."""
    assert counts is not None
    level = counts.float().mean(dim=(2, 3, 4)) / 10
    return level[..., None, None, None].expand(blurry.shape)


def test_a_network_is_given_other_spikes_and_leaves_out_the_frames_that_have_none():
    sequence = recording()
    grids = np.full((2, 8, 8, 12), 4, np.uint8)
    there = np.array([False, True])
    plain = Entrant(
        restorer=Restoring(brightness_of_spikes), voxels="k8", tiling=Tiling(num_frames=2, overlap_frames=0)
    )
    changed = replace(plain, changed={"seq": ChangedSpikes(OtherFrames(grids, [None, 1]), there, "made up")})
    entrants = {"restored": plain, "spikes=shift:+8": changed}
    twice = {"spike_only threshold 2": {"seq": ChangedSpikes(NoSpikes(grids), there, "none")}}
    first, second = judge_sequence(
        sequence, lineup(entrants, protocols=[PROTOCOLS["no-reference"]], estimates=twice)
    )
    assert "spikes=shift:+8" not in first.images and (second.images["spikes=shift:+8"] == 102).all()
    assert {score.method for score in first.scores} == {
        "blurry", "restored", "spike_only", "spike_only threshold 2"
    }  # fmt: skip
    assert torch.equal(first.images["spike_only threshold 2"], first.images["blurry"])
    assert not torch.equal(first.images["spike_only"], first.images["blurry"])


def test_a_protocol_without_a_reference_scores_frames_without_a_sharp_one():
    first, second = judged(recording(), protocols=("rgb8-all", "no-reference"))
    assert [{score.protocol for score in frame.scores} for frame in (first, second)] == [
        {"rgb8-all", "no-reference"},
        {"no-reference"},
    ]
    assert second.psnr is None and second.psnrs == {} and first.psnr == first.psnrs["restored"]
    (alone, _) = judged(recording(), protocols=("no-reference",))
    assert alone.psnrs == {} and set(alone.scores[0].values) == {"psnr_reblur", "spikes"}


def test_a_network_is_asked_for_the_instants_of_the_sharp_frames_and_the_middle_where_there_is_none():
    first, second = judged(recording(sharp_index=3), Telling(invert))
    for frame, instant in ((first, 3.5 / 32), (second, 0.5)):
        assert (frame.images["restored"] == round(255 * instant)).all()
