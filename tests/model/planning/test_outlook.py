from dataclasses import replace
from pathlib import Path

import pytest

from model.planning.outlook import choose_workers, observed, predict, whole_run
from model.planning.plan import Outlook
from model.planning.rehearsal import Rehearsal, StretchCost
from model.planning.stretches import Stretch
from model.training.config import TrainConfig
from pipeline.clips import ClipConfig

CLIP = ClipConfig(num_frames=2, crop=64)
FROZEN = Stretch(start=0, stop=100, clip=CLIP, clips=4, flow_frozen=True)
LEARNS = replace(FROZEN, start=100, stop=400, flow_frozen=False)
PIXELS = 2 * 64**2
CHECKED = Rehearsal(
    stretches=(StretchCost(step_s=1.0, data_share=0.5), StretchCost(step_s=3.0, data_share=0.0)),
    peak_bytes=9,
    start_s=7.0,
    end_s=12.0,
    checkpoint_bytes=1000,
)


def test_steps_that_read_faster_than_they_compute_do_not_wait() -> None:
    costs = (StretchCost(step_s=1.0, data_share=0.5), StretchCost(step_s=2.0, data_share=0.0))
    found = predict((FROZEN, LEARNS), costs, 9, times=2, clips_per_s=1000, clip_pixels=PIXELS)
    assert found.step_s == pytest.approx(
        (100 * 1.0 + 300 * 4.0) / 400
    )  # waiting in the rehearsal does not count
    assert (found.data_share, found.peak_bytes) == (0, 9)


def test_steps_that_read_more_slowly_wait() -> None:
    """4 clips at 1 a second take 4 s, 1 s of them beside computing; clips of twice the side take 16 s."""
    costs = (StretchCost(step_s=1.0, data_share=0.0),)
    found = predict((FROZEN,), costs, 9, times=1, clips_per_s=1, clip_pixels=PIXELS)
    assert (found.step_s, found.data_share) == (pytest.approx(4), pytest.approx(0.75))
    large = replace(FROZEN, clip=ClipConfig(num_frames=2, crop=128))
    assert predict((large,), costs, 9, times=1, clips_per_s=1, clip_pixels=PIXELS).step_s == pytest.approx(16)


def test_what_was_measured_is_weighted_by_the_steps_of_the_run() -> None:
    found = observed((FROZEN, LEARNS), CHECKED)
    assert found == Outlook(step_s=2.5, data_share=pytest.approx(50 / 1000), peak_bytes=9)


@pytest.mark.parametrize(("wanted", "workers"), [(5, 1), (7, 1), (8, 2), (15, 4), (500, 4)])
def test_takes_the_fewest_threads_that_are_enough(wanted: float, workers: int) -> None:
    assert choose_workers({1: 10, 2: 18, 4: 30}, wanted) == workers


def test_adds_up_the_whole_run() -> None:
    config = TrainConfig(
        store=Path("store"), steps=1000, validate_every=300, checkpoint_every=100, keep_checkpoints=3
    )
    step = Outlook(step_s=2.0, data_share=0.0, peak_bytes=9)
    run = whole_run(config, step, CHECKED, checkpoint_s=2.0, validated=(40, 10))
    assert (run.validations, run.validation_s) == (4, 40.0)  # 300, 600, 900 and the end; 10 s for a quarter
    assert run.checkpoints == 10  # every validation is at a step that is saved anyway
    assert run.seconds == 7 + 2000 + 4 * 40 + 10 * 2
    assert (run.checkpoint_bytes, run.disk_bytes) == (1000, 5000)


@pytest.mark.parametrize(
    ("validate_every", "checkpoint_every", "validations", "checkpoints"),
    [(0, 0, 0, 1), (0, 400, 0, 3), (500, 0, 2, 2), (250, 400, 4, 6), (400, 250, 3, 6)],
)
def test_counts_validations_and_checkpoints(
    validate_every: int, checkpoint_every: int, validations: int, checkpoints: int
) -> None:
    config = TrainConfig(
        store=Path("store"), steps=1000, validate_every=validate_every, checkpoint_every=checkpoint_every
    )
    validated = (40, 10) if validate_every else (0, 0)
    run = whole_run(
        config, Outlook(step_s=1, data_share=0, peak_bytes=1), CHECKED, checkpoint_s=1.0, validated=validated
    )
    assert (run.validations, run.checkpoints) == (validations, checkpoints)
    every = [n for n in range(1, 1001) if _due(n, validate_every) or _due(n, checkpoint_every) or n == 1000]
    assert run.checkpoints == len(every)


def _due(step: int, every: int) -> bool:
    return every > 0 and (step % every == 0 or step == 1000)
