from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.planning import rehearsal
from model.planning.apart import ProcessDiedError
from model.planning.rehearsal import TIMED_STEPS, WARM_STEPS, OutOfMemory, Rehearsal, rehearse
from model.train import TrainReport
from model.training.config import TrainConfig
from model.training.optim import OptimConfig
from pipeline.errors import StoreError, TrainingError

EVERY = WARM_STEPS + TIMED_STEPS
CONFIG = TrainConfig(
    store=Path("store"),
    steps=1000,
    validate_every=100,
    checkpoint_every=10,
    optim=OptimConfig(flow_freeze_steps=400),
)


def call_here(function, *arguments, progress):
    return function(*arguments, progress=progress)


class FakeTraining:
    """Training whose steps take 1 s each, but for the first of every stretch, and a clock to measure it by.

    Args:
        ends: 3 s after the last step.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.now = 100.0
        self.config: TrainConfig | None = None
        self.error = error
        monkeypatch.setattr(rehearsal, "call_apart", call_here)
        monkeypatch.setattr(rehearsal, "train", self.train)
        monkeypatch.setattr(rehearsal, "peak_memory_bytes", lambda: 123)
        monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: self.now)

    def train(self, config: TrainConfig, run: Path, *, progress) -> TrainReport:
        self.config = config
        if self.error:
            raise self.error
        run.mkdir()
        lines = []
        for step in range(1, config.steps + 1):
            self.now += 50 if step % EVERY == 1 else 1 + (step > EVERY)
            progress(step, config.steps, "")
            lines.append(f'{{"step": {step}, "data_share": {0.25 if step > EVERY else 0.5}}}\n')
        self.now += 3
        progress(config.steps, config.steps, "saved")
        (run / "metrics.jsonl").write_text("".join(lines) + '{"step": 1, "val_psnr": 1.0}\n')
        (run / "checkpoint").write_bytes(bytes(77))
        return TrainReport(
            run=run,
            step=config.steps,
            loss=0.0,
            val_psnr=None,
            checkpoint=run / "checkpoint",
            interrupted=False,
        )


def test_times_the_steps_of_every_stretch_after_its_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTraining(monkeypatch)
    found = rehearse(CONFIG, tmp_path / "run")
    assert isinstance(found, Rehearsal)
    assert [(cost.step_s, cost.data_share) for cost in found.stretches] == [(1.0, 0.5), (2.0, 0.25)]
    assert (found.peak_bytes, found.start_s, found.end_s, found.checkpoint_bytes) == (123, 50.0, 3.0, 77)


def test_trains_the_config_itself_in_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch)
    rehearse(CONFIG, tmp_path / "a")
    expected = replace(
        CONFIG,
        steps=2 * EVERY,
        log_every=1,
        checkpoint_every=0,
        sample_every=0,
        validate_every=0,
        validate_clips=1,
        optim=replace(CONFIG.optim, flow_freeze_steps=EVERY),
    )
    assert training.config == expected
    rehearse(CONFIG, tmp_path / "b", validate=True)
    assert training.config == replace(expected, validate_every=2 * EVERY)
    rehearse(replace(CONFIG, validate_every=0), tmp_path / "c", validate=True)
    assert training.config == expected


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        TrainingError("out of memory on cuda:0 in step 3: tried to allocate 2 GiB", "lower it"),
        MemoryError("no more"),
    ],
)
def test_running_out_of_memory_is_an_answer(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTraining(monkeypatch, error)
    found = rehearse(CONFIG, tmp_path / "run")
    assert isinstance(found, OutOfMemory) and "\n" not in found.text


@pytest.mark.parametrize("error", [TrainingError("no finite loss"), StoreError("damaged")])
def test_other_failures_are_failures(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTraining(monkeypatch, error)
    with pytest.raises(type(error), match=error.problem):
        rehearse(CONFIG, tmp_path / "run")


def test_a_process_that_the_system_kills_ran_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(code: int):
        def call(*words: object, **options: object) -> None:
            raise ProcessDiedError(code)

        return call

    monkeypatch.setattr(rehearsal, "call_apart", die(-9))
    assert isinstance(rehearse(CONFIG, tmp_path), OutOfMemory)
    monkeypatch.setattr(rehearsal, "call_apart", die(-11))
    with pytest.raises(TrainingError, match="exit code -11"):
        rehearse(CONFIG, tmp_path)
