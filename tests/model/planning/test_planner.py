import logging
from dataclasses import replace
from pathlib import Path

import pytest

from model.network import NetworkConfig
from model.planning import planner as module
from model.planning.device import Device
from model.planning.planner import Planner
from model.planning.rehearsal import OutOfMemory, Rehearsal, StretchCost
from model.planning.stretches import stretches_of
from model.planning.survey import Survey
from model.training.config import TrainConfig
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig
from pipeline.errors import TrainingError
from tests.model.planning.test_demand import MB, needs

CONFIG = TrainConfig(
    store=Path("store"),
    steps=1000,
    batch_size=8,
    workers=1,
    validate_every=500,
    checkpoint_every=250,
    clip=ClipConfig(num_frames=2, crop=64),
    network=NetworkConfig(memory_gb=30.0),
    optim=OptimConfig(flow_freeze_steps=400),
)
CPU = Device(kind="cpu", name="CPU", total_bytes=10_000 * MB)


class FakeMachine:
    """Takes 100 MB and 200 more for each clip of a batch, 25 more for a checked one, and 1 s for each batch and clip.

    Args:
        fails: settings, as (batch size, crop), that run out of memory when checked.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str = "cpu", fails: tuple = ()) -> None:
        self.rehearsed: list[tuple[int, int, int, bool]] = []
        self.configs: list[TrainConfig] = []
        self.kind = kind
        self.fails = fails
        monkeypatch.setattr(module, "call_apart", self.survey)
        monkeypatch.setattr(module, "rehearse", self.rehearse)

    def survey(self, function, config: TrainConfig, run: Path, *, progress) -> Survey:
        assert function is module.survey
        return Survey(
            config=replace(config, voxels="k8"),
            num_clips=12,
            device=replace(CPU, kind=self.kind),
            free_bytes=8000 * MB,
            parameters=5 * MB,
            trainable=5 * MB,
            idle_bytes=0,
            needs=(needs(crop=64, clips=stretches_of(config)[0].clips),),
            clips_per_s={1: 0.8, 2: 1.5, 4: 2.9},
            validated=(6, 2),
            scale=1,
            store={"path": "store", "fingerprint": "abc"},
            versions={"torch": "2"},
        )

    def rehearse(
        self, config: TrainConfig, folder: Path, *, validate: bool = False, progress
    ) -> Rehearsal | OutOfMemory:
        progress(1, 5, "loss")
        (folder / "checkpoints").mkdir(parents=True)
        batches, clips, crop = config.optim.accumulate, config.batch_size, config.clip.crop
        self.rehearsed.append((batches, clips, crop, validate))
        self.configs.append(config)
        if validate and (clips, crop) in self.fails:
            return OutOfMemory("tried to allocate")
        pixels = (crop / 64) ** 2
        kept = 120 if config.network.checkpoint_stages else 180
        cost = StretchCost(step_s=batches * (1 + clips * pixels), data_share=0.0)
        return Rehearsal(
            stretches=(cost, replace(cost, step_s=1.5 * cost.step_s)),
            peak_bytes=round((100 + 25 * validate + kept * clips * pixels) * MB),
            start_s=10.0,
            end_s=8.0 if validate else 2.0,
            checkpoint_bytes=60 * MB,
        )


def test_plans_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "model")
    machine, seen = FakeMachine(monkeypatch), []
    plan = Planner(CONFIG, folder=tmp_path, progress=lambda *what: seen.append(what)).run()
    tried = [(2, 1), (2, 2), (2, 4), (1, 8)]  # of several batches, two are enough to know
    assert machine.rehearsed == [*((*one, 64, False) for one in tried), (1, 8, 64, True)]
    assert plan.budget_bytes == 7000 * MB  # what is free, less a tenth of all
    assert plan.config == replace(
        CONFIG,
        voxels="k8",
        workers=2,
        network=NetworkConfig(),
        parallel=replace(CONFIG.parallel, device="cpu"),
    )
    assert [(one.accumulate, one.batch_size, one.step_s, one.verdict) for one in plan.candidates] == [
        (8, 1, pytest.approx(8 * 2 * 1.3), "fits"),
        (4, 2, pytest.approx(4 * 3 * 1.3), "fits"),
        (2, 4, pytest.approx(2 * 5 * 1.3), "fits"),
        (1, 8, pytest.approx(9 * 1.3), "chosen"),
    ]
    assert plan.predicted.step_s == pytest.approx(9 * 1.3) == plan.measured.step_s
    assert (plan.predicted.peak_bytes, plan.measured.peak_bytes) == (1540 * MB, 1565 * MB)
    assert [(one.start, one.stop, one.flow_frozen, one.step_s) for one in plan.stretches] == [
        (0, 400, True, 9.0),
        (400, 1000, False, 13.5),
    ]
    assert (plan.run.validations, plan.run.validation_s, plan.run.checkpoints) == (2, 18.0, 4)
    assert plan.run.seconds == pytest.approx(10 + 11_700 + 2 * 18 + 4 * 2)
    assert plan.notes == (
        "network.memory_gb=30 gives way to stages that were measured",
        "workers=2 instead of 1, for clips to come fast enough",
    )
    assert seen == [(1, 5, seen[index][2]) for index in range(5)] and "checking" in seen[-1][2]
    assert "1.54 GB, 11.7 s a step" in caplog.text
    assert not any(tmp_path.iterdir())  # nothing is left of the rehearsals


def test_keeps_the_clips_of_a_step_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch)
    plan = Planner(CONFIG, clips=6, folder=tmp_path).run()
    assert plan.clips_per_step == 6
    assert {one.batch_size * one.accumulate for one in plan.candidates} == {6}
    assert [one.batch_size for one in plan.candidates] == [1, 2, 3, 6]


def test_keeps_to_the_memory_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(monkeypatch)
    plan = Planner(CONFIG, memory_gb=0.9, folder=tmp_path).run()
    assert plan.budget_bytes == 900 * MB
    assert plan.measured.peak_bytes <= 900 * MB
    assert (plan.config.batch_size, plan.config.optim.accumulate) == (4, 2)
    assert max(clips for _, clips, _, _ in machine.rehearsed) == 4
    assert plan.candidates[-1].reason == "is foretold not to fit"


def test_cuts_crops_down_only_if_it_must_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMachine(monkeypatch)
    plan = Planner(CONFIG, memory_gb=0.23, folder=tmp_path).run()
    assert plan.config.clip.crop == 48
    assert "cut down to 48, which changes what is learned" in plan.notes[0]
    assert plan.measured.peak_bytes <= plan.budget_bytes


def test_a_setting_that_fails_its_check_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(monkeypatch, "cuda", fails=((8, 64),))
    plan = Planner(CONFIG, folder=tmp_path).run()
    assert machine.rehearsed[-2:] == [(1, 8, 64, True), (2, 4, 64, True)]
    assert plan.config.batch_size == 4
    assert plan.budget_bytes == 7500 * MB  # of a GPU, a twentieth is left alone
    assert [one.verdict for one in plan.candidates] == ["fits", "fits", "chosen", "too large"]
    assert plan.candidates[-1].reason == "tried to allocate"


def test_a_checked_step_takes_all_of_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(monkeypatch)
    Planner(CONFIG, memory_gb=0.31, folder=tmp_path).run()
    assert machine.rehearsed[0] == (2, 1, 64, False) and machine.rehearsed[-1] == (8, 1, 64, True)
    assert machine.configs[-1].optim.accumulate * machine.configs[-1].batch_size == 8


def test_says_how_much_is_missing_where_nothing_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMachine(monkeypatch)
    with pytest.raises(TrainingError, match=r"no crop down to 16 pixels .* 0\.09 GB: .* to need 0\.11 GB"):
        Planner(CONFIG, memory_gb=0.09, folder=tmp_path).run()


def test_foretells_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(monkeypatch)
    found = Planner(CONFIG, memory_gb=0.7, folder=tmp_path).foretell()
    assert not machine.rehearsed
    assert [(one.batch_size, one.reason) for one in found.candidates] == [
        (1, "should fit"),
        (2, "should fit"),
        (4, "should not fit"),
        (8, "should not fit"),
    ]


def test_a_budget_above_what_is_free_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMachine(monkeypatch)
    assert "above what is free now, 8.0 GB" in Planner(CONFIG, memory_gb=9, folder=tmp_path).run().notes[-1]
