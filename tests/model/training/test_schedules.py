import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from model.training.optim import OptimConfig
from model.training.schedules import TurningPoint, in_words, learning_rate, turning_points


def rates_of(scheduler: type[lr_scheduler.LRScheduler], **settings: Any) -> Iterator[float]:
    """The learning rates that torch gives step after step, from a base of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = scheduler(optimizer, **settings)
    while True:
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


def ours(config: OptimConfig, steps: int) -> list[float]:
    return [learning_rate(step, config, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1), (99, 0.1)],
)
def test_rises_and_falls_as_worked_out_by_hand(step: int, wanted: float) -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=4)
    assert learning_rate(step, config, steps=12) == pytest.approx(wanted)


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert learning_rate(0, OptimConfig(lr=0.5, warmup_steps=0), steps=10) == 0.5


@pytest.mark.parametrize(
    ("periods", "restarts"),
    [((7,), {"T_0": 7}), ((4, 8, 16, 32), {"T_0": 4, "T_mult": 2}), ((60,), {"T_0": 60})],
)
def test_warm_restarts_are_those_of_torch(periods: tuple[int, ...], restarts: dict[str, int]) -> None:
    config = OptimConfig(lr=1.0, min_lr=0.01, warmup_steps=0, periods=periods)
    wanted = rates_of(lr_scheduler.CosineAnnealingWarmRestarts, eta_min=0.01, **restarts)
    assert ours(config, 60) == pytest.approx(list(itertools.islice(wanted, 60)), rel=1e-12)


def test_one_cycle_is_that_of_torch_and_ends_with_the_run() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.01, warmup_steps=0)
    wanted = rates_of(lr_scheduler.CosineAnnealingLR, T_max=30, eta_min=0.01)
    assert ours(config, 30) == pytest.approx(list(itertools.islice(wanted, 30)), rel=1e-9)


def test_milestones_are_those_of_torch() -> None:
    config = OptimConfig(
        lr=1.0, min_lr=0.0, warmup_steps=0, schedule="multistep", milestones=(3, 5, 9), gamma=0.3
    )
    wanted = rates_of(lr_scheduler.MultiStepLR, milestones=[3, 5, 9], gamma=0.3)
    assert ours(config, 12) == pytest.approx(list(itertools.islice(wanted, 12)), rel=1e-12)


def test_milestones_do_not_go_below_the_least() -> None:
    config = OptimConfig(
        lr=1.0, min_lr=0.2, warmup_steps=0, schedule="multistep", milestones=(1, 2), gamma=0.3
    )
    assert ours(config, 3) == [1.0, 0.3, 0.2]


def test_a_constant_schedule_keeps_what_the_warm_up_reached() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=2, schedule="constant")
    assert ours(config, 5) == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_each_restart_has_its_weight_and_the_last_cycle_repeats() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=2, periods=(4, 2), restart_weights=(1.0, 0.5))
    wanted = [0.5, 1.0, *(0.1 + 0.9 * part for part in (1.0, 0.853553, 0.5, 0.146447)), *(0.5, 0.3) * 2]
    assert ours(config, 10) == pytest.approx(wanted, abs=1e-6)


def test_cycles_do_not_depend_on_the_length_of_the_run() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=1, periods=(4, 2))
    assert ours(config, 9) == ours(config, 30)[:9]


def test_a_multiplier_lowers_the_top_and_not_the_least() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=2)
    rates = [learning_rate(step, config, 6, multiplier=0.5) for step in (0, 2, 4, 6)]
    assert rates == pytest.approx([0.25, 0.5, 0.3, 0.1])
    assert {learning_rate(step, config, 6, multiplier=0.05) for step in (2, 4, 6)} == {0.05}
    assert learning_rate(4, config, 6, multiplier=0.0) == 0.0


def points_of(config: OptimConfig, steps: int) -> dict[int, float]:
    return {point.step: point.lr for point in turning_points(config, steps)}


def test_the_turning_points_are_the_start_the_peaks_and_the_end() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.5, warmup_steps=2, periods=(4, 2), restart_weights=(1.0, 0.8))
    assert points_of(config, 10) == pytest.approx({1: 0.5, 3: 1.0, 7: 0.8, 9: 0.8, 10: 0.65})
    assert in_words(config, 10).startswith("learning rate, cosine: 0.5 in step 1, 1 in step 3, 0.8 in step 7")
    one = OptimConfig(lr=1.0, min_lr=0.0, warmup_steps=0)
    assert [point.step for point in turning_points(one, 100)] == [1, 100]
    assert turning_points(one, 1) == [TurningPoint(1, 1.0)]
    drops = OptimConfig(lr=1.0, warmup_steps=1, schedule="multistep", milestones=(4, 50), gamma=0.1)
    assert points_of(drops, 10) == pytest.approx({1: 1.0, 2: 1.0, 5: 0.1, 10: 0.1})


def test_many_turns_are_counted() -> None:
    words = in_words(OptimConfig(lr=1.0, warmup_steps=0, periods=(10,)), 1000)
    assert words.count(",") == 8 and "94 more turns, " in words and words.endswith("in step 1000")
