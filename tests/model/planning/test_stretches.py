from dataclasses import replace
from pathlib import Path

import pytest

from model.planning.stretches import (
    divisible_by,
    in_miniature,
    stretches_of,
    taken_in,
    with_batches_up_to,
    with_clips,
    with_crop_limit,
)
from model.training.config import PhaseConfig, TrainConfig
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig
from pipeline.errors import UsageError

CONFIG = TrainConfig(
    store=Path("store"),
    steps=1000,
    batch_size=4,
    clip=ClipConfig(num_frames=3, crop=64),
    optim=OptimConfig(accumulate=3, flow_freeze_steps=200),
)


def frozen_for(steps: int) -> TrainConfig:
    return replace(CONFIG, optim=replace(CONFIG.optim, flow_freeze_steps=steps))


def test_a_run_changes_when_the_flow_begins_to_learn() -> None:
    first, second = stretches_of(CONFIG)
    assert (first.start, first.stop, first.flow_frozen, first.clips) == (0, 200, True, 12)
    assert (second.start, second.stop, second.flow_frozen, second.steps) == (200, 1000, False, 800)
    assert (str(first), str(second)) == ("3x64x64, flow frozen", "3x64x64")


@pytest.mark.parametrize(
    ("frozen", "flags"), [(0, [False]), (1000, [True]), (5000, [True]), (999, [True, False])]
)
def test_a_run_that_does_not_change_is_one_stretch(frozen: int, flags: list[bool]) -> None:
    stretches = stretches_of(frozen_for(frozen))
    assert [stretch.flow_frozen for stretch in stretches] == flags
    assert stretches[-1].stop == 1000


@pytest.mark.parametrize("frozen", [0, 200, 1000, 5000])
def test_a_miniature_has_the_same_stretches_of_some_steps_each(frozen: int) -> None:
    config = frozen_for(frozen)
    small = in_miniature(config, 5)
    before, after = stretches_of(config), stretches_of(small)
    assert [stretch.flow_frozen for stretch in before] == [stretch.flow_frozen for stretch in after]
    assert [stretch.steps for stretch in after] == [5] * len(before)


def test_the_clips_of_a_step_stay_the_same_in_any_number_of_batches() -> None:
    assert divisible_by(CONFIG) == 12
    for batches in (1, 2, 3, 4, 6, 12):
        taken = taken_in(CONFIG, batches)
        assert (taken.batch_size, taken.optim.accumulate) == (12 // batches, batches)
        assert stretches_of(taken) == stretches_of(CONFIG)
    assert stretches_of(with_clips(CONFIG, 7))[0].clips == 7
    assert stretches_of(with_batches_up_to(CONFIG, 2))[0].clips == 8
    assert with_batches_up_to(CONFIG, 9) == CONFIG


def test_crops_are_cut_down_and_never_grow() -> None:
    assert with_crop_limit(CONFIG, 48).clip.crop == 48
    assert with_crop_limit(CONFIG, 96) == CONFIG


PHASES = replace(
    CONFIG,
    phases=(
        PhaseConfig(start=500, crop=128, batch_size=2),
        PhaseConfig(start=800, num_frames=5),
        PhaseConfig(start=2000),
    ),
)


def test_phases_are_stretches() -> None:
    found = [(one.start, one.stop, str(one), one.clips) for one in stretches_of(PHASES)]
    assert found == [
        (0, 200, "3x64x64, flow frozen", 12),
        (200, 500, "3x64x64", 12),
        (500, 800, "3x128x128", 6),
        (800, 1000, "5x64x64", 12),
    ]


def test_a_miniature_has_the_same_phases() -> None:
    before, after = stretches_of(PHASES), stretches_of(in_miniature(PHASES, 5))
    assert [(one.clip, one.clips, one.flow_frozen) for one in before] == [
        (one.clip, one.clips, one.flow_frozen) for one in after
    ]
    assert [one.steps for one in after] == [5] * 4


def test_the_clips_of_every_phase_stay_the_same_in_any_number_of_batches() -> None:
    assert divisible_by(PHASES) == 6
    for batches in (1, 2, 3, 6):
        assert stretches_of(taken_in(PHASES, batches)) == stretches_of(PHASES)
    with pytest.raises(UsageError, match="500"):
        with_clips(PHASES, 4)


def test_crops_of_phases_are_cut_down_too() -> None:
    assert [one.clip.crop for one in stretches_of(with_crop_limit(PHASES, 96))] == [64, 64, 96, 64]
