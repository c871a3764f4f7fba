import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.network import NetworkConfig, SpikeVRT
from model.training.profiling import PROFILED, WARM_UP, ProfileReport, StepProfiler, _named
from model.training.signals import StopRequest
from model.training.trainer import Schedule, Trainer
from pipeline.clips import Sample
from pipeline.errors import TrainingError
from tests.model.training.test_learner import assert_equal, clip, make, state_of

PHASES = {"data wait", "transfer", "forward", "backward", "optimizer", "average", "rest"}


def clips(count: int = 1000) -> Iterator[Sample]:
    return (clip(number) for number in range(count))


def train(folder: Path, steps: int, *, profiled: bool = True, accumulate: int = 1, given: int = 1000):
    """A learner after some steps, and the profile of them."""
    learner = make()
    profiler = StepProfiler(learner, folder, steps)
    schedule = Schedule(steps=steps, accumulate=accumulate)
    before = profiler.before_step if profiled else None
    trainer = Trainer(learner, schedule, save=lambda milestone: None, before_step=before)
    with profiler:
        trainer.fit(profiler.watch(clips(given)) if profiled else clips(given), StopRequest())
    return learner, profiler


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ProfileReport:
    folder = tmp_path_factory.mktemp("run") / "profile"
    learner, profiler = train(folder, WARM_UP + PROFILED + 3, accumulate=2)
    assert learner.phase("anything").__class__.__name__ == "nullcontext"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in learner.network.modules())
    assert profiler.report
    return profiler.report


def test_says_what_the_phases_of_a_step_take(found: ProfileReport) -> None:
    assert found.steps == PROFILED and found.step_s > 0
    assert found.phases.keys() == PHASES
    assert sum(found.phases.values()) == pytest.approx(1) and min(found.phases.values()) >= 0
    assert found.phases["forward"] > 0.05 and found.phases["backward"] > 0.05
    assert found.phases["transfer"] < 0.1


def test_says_what_parts_and_operators_take(found: ProfileReport) -> None:
    assert found.parts.keys() == {"rgb", "spikes", "spynet", "drop"}
    assert 0.1 < sum(found.parts.values()) < 1
    assert sum(found.operators.values()) == pytest.approx(1)
    assert "aten::convolution_backward" in found.operators or "aten::mkldnn_convolution" in found.operators
    shares = list(found.operators.values())
    assert shares == sorted(shares, reverse=True)
    assert not any(name.startswith(("phase", "part")) for name in found.operators)


def test_leaves_a_trace_and_a_table(found: ProfileReport) -> None:
    assert sorted(path.name for path in found.trace.parent.iterdir()) == ["table.txt", "trace.json.gz"]
    events = json.loads(gzip.decompress(found.trace.read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events if event.get("ph") == "X"]
    assert names.count("phase: backward") == 2 * PROFILED  # two batches a step
    assert names.count("phase: optimizer") == PROFILED
    assert names.count("part: rgb") == 2 * PROFILED
    text = found.table.read_text()
    assert text.startswith(str(found)) and "Self CPU" in text
    assert found.to_json().keys() >= {"trace", "table"}


def test_changes_nothing_of_what_is_computed(tmp_path: Path) -> None:
    steps = WARM_UP + PROFILED + 1
    plain, _ = train(tmp_path, steps, profiled=False)
    watched, profiler = train(tmp_path, steps)
    assert profiler.report
    assert_equal(state_of(plain), state_of(watched))


def test_a_short_session_shows_the_steps_it_has(tmp_path: Path) -> None:
    assert train(tmp_path, WARM_UP + 2)[1].report.steps == 2


def test_says_that_a_session_is_too_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, profiler = train(tmp_path / "profile", WARM_UP)
    assert profiler.report is None and not (tmp_path / "profile").exists()
    assert "the first 5 steps are left out, and there are 5" in caplog.text


def test_a_run_that_fails_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no more clips"):
        train(tmp_path / "profile", 100, given=WARM_UP + 2)
    assert not (tmp_path / "profile").exists()
    assert train(tmp_path / "profile", 100, given=100)[
        1
    ].report  # a profiler left running would not let another start


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.training.profiling.write_atomic", fail)
    learner, profiler = train(tmp_path, WARM_UP + PROFILED + 1)
    assert profiler.report is None and "CANNOT BE WRITTEN" in caplog.text
    assert learner.optimizer.state


def test_parts_are_those_of_the_figure_and_errors_close_them(tiny: Callable[..., NetworkConfig]) -> None:
    network = SpikeVRT(tiny(), 4)
    part = network.parts()["conv_first"]
    with _named("conv_first", part), pytest.raises(RuntimeError):
        part(torch.zeros(1, 1, 1, 1, 1))
    assert not part._forward_hooks and not part._forward_pre_hooks
