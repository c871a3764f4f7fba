import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import nn

from model.parallel import Parallel
from model.training.events import Best, Listener, Milestone, Seen, StepMetrics, Validation
from model.training.learner import StepResult
from model.training.signals import StopRequest
from model.training.trainer import Schedule, Trainer
from pipeline.clips import Sample, checksum_of
from pipeline.errors import StoreError, TrainingError

GOOD = StepResult(0.5, 0.5, 0.0, 1.0, 1e-3, True, False, False)
BAD = GOOD._replace(loss=float("nan"), applied=False)
OVERFLOW = GOOD._replace(applied=False, overflow=True)


class Second(Parallel):
    """One of two processes, whose numbers are all zero."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


class FakeLearner:
    """Answers each step with the next of some results, and then with the last."""

    place = Parallel(device=torch.device("cpu"))
    best_network = nn.Identity()
    is_whole = True

    def __init__(self, *results: StepResult | Exception) -> None:
        self.results = list(results) or [GOOD]
        self.seen: list[tuple[int, list[int]]] = []

    def step(self, step: int, batches: Sequence[Sample], stop: object) -> StepResult:
        self.seen.append((step, [int(sample.blurry) for sample in batches]))
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result._replace(stop=result.stop or stop())


class Recorder(Listener):
    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []
        self.validations: list[tuple[int, float, bool]] = []
        self.pictures: list[int] = []
        self.skipped: list[int] = []
        self.saved: list[tuple[int, bool]] = []

    def on_saved(self, step: int, is_best: bool) -> None:
        self.saved.append((step, is_best))

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        self.validations.append((step, validation.psnr, is_best))

    def on_pictures(self, step: int, network: nn.Module) -> None:
        self.pictures.append(step)

    def on_skipped(self, step: int, loss: float, grad_norm: float) -> None:
        self.skipped.append(step)


def clips() -> Iterator[Sample]:
    return (Sample(*(torch.tensor(i),) * 3) for i in range(10_000))


class Run:
    """A trainer with everything it reports recorded."""

    def __init__(
        self, learner: FakeLearner, schedule: Schedule, psnrs: Sequence[float] | None = None
    ) -> None:
        self.saved: list[Milestone] = []
        self.heard = Recorder()
        self.progress: list[int] = []
        scores = iter(psnrs or ())
        self.trainer = Trainer(
            learner,
            schedule,
            save=self.saved.append,
            validate=(lambda network, stop: Validation(next(scores), 3)) if psnrs else None,
            listeners=[self.heard],
            progress=lambda done, total, what: self.progress.append(done),
        )


def test_does_every_step_once_with_its_batches() -> None:
    learner = FakeLearner()
    fit = Run(learner, Schedule(steps=3, accumulate=2)).trainer.fit(clips(), StopRequest())
    assert learner.seen == [(0, [0, 1]), (1, [2, 3]), (2, [4, 5])]
    assert fit == (3, 0.5, False)


def test_logs_saves_looks_and_shows_when_due_and_at_the_end() -> None:
    schedule = Schedule(steps=7, log_every=2, validate_every=3, checkpoint_every=5, sample_every=6)
    run = Run(FakeLearner(), schedule, [30.0, 29.0, 31.0])
    run.trainer.fit(clips(), StopRequest())
    assert [metrics.step for metrics in run.heard.steps] == [2, 4, 6, 7]
    assert run.heard.validations == [(3, 30.0, True), (6, 29.0, False), (7, 31.0, True)]
    assert run.heard.pictures == [6, 7]
    assert [(m.step, m.is_best) for m in run.saved] == [(3, True), (5, False), (7, True)] == run.heard.saved
    assert run.saved[1].best == Best(3, 30.0) and run.saved[2].best == Best(7, 31.0)
    assert run.progress == [1, 2, 3, 4, 5, 6, 7]


def test_clips_a_second_and_epochs_count_the_clips_of_all_processes() -> None:
    run = Run(FakeLearner(), Schedule(steps=6, log_every=6))
    run.trainer.seen = lambda steps: Seen(8 * steps, 8 * steps / 32)
    run.trainer.fit(clips(), StopRequest())
    (metrics,) = run.heard.steps
    assert metrics.epoch == 1.5 and metrics.samples_per_s == 8 * metrics.steps_per_s


def test_is_told_before_each_step_and_tells_where_its_time_went() -> None:
    run = Run(FakeLearner(), Schedule(steps=6, log_every=3, validate_every=2), [30.0, 31.0, 32.0])
    before: list[int] = []
    run.trainer.before_step = before.append
    run.trainer.save = lambda milestone: time.sleep(0.02)
    run.trainer.fit(clips(), StopRequest(), start=1)
    assert before == [1, 2, 3, 4, 5]
    assert [metrics.saving_share > 0.5 for metrics in run.heard.steps] == [True, True]
    assert all(0 <= metrics.validation_share < 0.5 for metrics in run.heard.steps)


def test_without_validation_there_is_no_best() -> None:
    run = Run(FakeLearner(), Schedule(steps=2, validate_every=1))
    run.trainer.fit(clips(), StopRequest())
    assert [(m.step, m.best, m.is_best) for m in run.saved] == [(2, None, False)]


def test_a_best_of_before_stands_until_it_is_beaten() -> None:
    run = Run(FakeLearner(), Schedule(steps=4, validate_every=1), [29.0, 33.0])
    run.trainer.best = Best(2, 30.0)
    run.trainer.fit(clips(), StopRequest(), start=2)
    assert [best for _, _, best in run.heard.validations] == [False, True]


def test_a_request_to_stop_ends_the_run_after_the_step_with_a_checkpoint() -> None:
    stop = StopRequest()
    run = Run(FakeLearner(), Schedule(steps=9))
    run.trainer.progress = lambda done, total, what: setattr(stop, "requested", done >= 3)
    fit = run.trainer.fit(clips(), stop)
    assert fit.interrupted and fit.step == 3
    assert [m.step for m in run.saved] == [3]


def test_stops_where_it_is_told_and_goes_on_from_there() -> None:
    learner = FakeLearner()
    fit = Run(learner, Schedule(steps=5, stop_at=2)).trainer.fit(clips(), StopRequest())
    assert fit == (2, 0.5, True)
    fit = Run(learner, Schedule(steps=5)).trainer.fit(clips(), StopRequest(), start=2)
    assert [step for step, _ in learner.seen] == [0, 1, 2, 3, 4] and not fit.interrupted


def test_a_finished_run_does_nothing() -> None:
    run = Run(FakeLearner(), Schedule(steps=5))
    assert run.trainer.fit(clips(), StopRequest(), start=5) == (5, None, False)
    assert not run.saved


def test_a_request_before_the_first_step_is_met_without_one() -> None:
    stop = StopRequest()
    stop.requested = True
    learner = FakeLearner()
    run = Run(learner, Schedule(steps=9))
    assert run.trainer.fit(clips(), stop) == (0, None, True)
    assert [m.step for m in run.saved] == [0] and not learner.seen
    resumed = Run(learner, Schedule(steps=9))
    assert resumed.trainer.fit(clips(), stop, start=4) == (4, None, True)
    assert not resumed.saved  # the checkpoint that it was resumed from says all


def test_a_request_cuts_validation_short_and_it_is_made_up_for_on_resume() -> None:
    stop, schedule = StopRequest(), Schedule(steps=4, validate_every=2, sample_every=2)
    run = Run(FakeLearner(), schedule, [30.0])

    def validate(network: nn.Module, stops: Callable[[], bool]) -> None:
        assert not stops()
        stop.requested = True
        assert stops()

    run.trainer.validate = validate
    assert run.trainer.fit(clips(), stop) == (2, 0.5, True)
    assert run.saved == [Milestone(2, 0.5, None, False, look_due=True)]
    assert not run.heard.validations and not run.heard.pictures

    learner = FakeLearner()
    resumed = Run(learner, schedule, [31.0, 30.0])
    resumed.trainer.take_up(run.saved[0])
    assert not resumed.trainer.fit(clips(), StopRequest(), start=2).interrupted
    assert resumed.heard.validations == [(2, 31.0, True), (4, 30.0, False)]
    assert resumed.heard.pictures == [2, 4]
    assert resumed.saved == [
        Milestone(2, 0.5, Best(2, 31.0), True),
        Milestone(4, 0.5, Best(2, 31.0), False),
    ]
    assert [step for step, _ in learner.seen] == [2, 3]


def test_a_run_whose_last_validation_was_cut_short_is_not_done() -> None:
    schedule = Schedule(steps=2, validate_every=2)
    run = Run(FakeLearner(), schedule, [30.0])
    run.trainer.validate = lambda network, stops: None
    assert run.trainer.fit(clips(), StopRequest()) == (2, 0.5, True)
    resumed = Run(FakeLearner(), schedule, [30.0])
    resumed.trainer.take_up(run.saved[0])
    assert resumed.trainer.fit(clips(), StopRequest(), start=2) == (2, None, False)
    assert resumed.saved == [Milestone(2, 0.5, Best(2, 30.0), True)]


def test_a_request_is_met_again_before_what_was_put_off() -> None:
    stop = StopRequest()
    stop.requested = True
    run = Run(FakeLearner(), Schedule(steps=2, validate_every=2), [30.0])
    run.trainer.take_up(Milestone(2, 0.5, None, False, look_due=True))
    assert run.trainer.fit(clips(), stop, start=2).interrupted and not run.heard.validations


def test_left_out_steps_are_counted_over_all_of_a_run() -> None:
    run = Run(FakeLearner(BAD, GOOD), Schedule(steps=2))
    run.trainer.fit(clips(), StopRequest())
    resumed = Run(FakeLearner(BAD, GOOD), Schedule(steps=4))
    resumed.trainer.take_up(run.saved[-1])
    resumed.trainer.fit(clips(), StopRequest(), start=2)
    assert resumed.saved[-1].skipped == 2


def test_an_error_of_the_clips_ends_the_run_with_a_checkpoint_of_the_last_good_step() -> None:
    def breaking() -> Iterator[Sample]:
        yield from itertools.islice(clips(), 3)
        raise StoreError("blurry/c/0: damaged", "spk repair STORE")

    run = Run(FakeLearner(), Schedule(steps=9, checkpoint_every=2))
    with pytest.raises(StoreError, match="damaged"):
        run.trainer.fit(breaking(), StopRequest())
    assert [m.step for m in run.saved] == [2, 3]
    again = Run(FakeLearner(), Schedule(steps=9))
    with pytest.raises(StoreError):
        again.trainer.fit(itertools.chain(breaking()), StopRequest(), start=3)
    assert [m.step for m in again.saved] == [6]


def test_nothing_is_saved_twice_or_half_done_when_an_error_ends_the_run() -> None:
    def run_out(learner: FakeLearner, **when: int) -> list[int]:
        run = Run(learner, Schedule(steps=9, **when))
        with pytest.raises(TrainingError, match="no more clips"):
            run.trainer.fit(itertools.islice(clips(), 2), StopRequest())
        return [m.step for m in run.saved]

    assert run_out(FakeLearner(), checkpoint_every=2) == [2]
    half, one_of_two = FakeLearner(), FakeLearner()
    half.is_whole = False
    one_of_two.place = Second(device=torch.device("cpu"), world=2)
    assert run_out(half) == run_out(one_of_two) == []


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_out_of_memory_ends_the_run_with_a_checkpoint_and_keeps_nothing_alive(kind: type[Exception]) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Greedy(FakeLearner):
        def step(self, step: int, batches: Sequence[Sample], stop: object) -> StepResult:
            activations = torch.zeros(3)
            held.append(weakref.ref(activations))
            if step == 2:
                raise kind("tried to allocate 3 GiB")
            return super().step(step, batches, stop)

    run = Run(Greedy(), Schedule(steps=9))
    with pytest.raises(TrainingError, match="out of memory on cpu in step 3") as caught:
        run.trainer.fit(clips(), StopRequest())
    assert held[-1]() is None and caught.value.__context__ is None
    assert [m.step for m in run.saved] == [2]


def test_out_of_memory_in_validation_names_its_setting_and_the_best_stands() -> None:
    run = Run(FakeLearner(), Schedule(steps=9, validate_every=2), [30.0])

    def validate(network: nn.Module, stops: object) -> Validation:
        raise torch.OutOfMemoryError("tried to allocate 3 GiB")

    run.trainer.validate = validate
    with pytest.raises(TrainingError, match="in validation after step 2: tried") as caught:
        run.trainer.fit(clips(), StopRequest())
    assert "validate_crop" in caught.value.fix
    assert run.saved == [Milestone(2, 0.5, None, False, look_due=True)]


def test_a_listener_that_cannot_write_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(FakeLearner(), Schedule(steps=6, log_every=1, sample_every=2))
    full = [True]

    def on_step(metrics: StepMetrics) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")

    run.heard.on_step = on_step  # type: ignore[method-assign]
    run.trainer.progress = lambda done, total, what: full.__setitem__(0, done < 5)
    assert run.trainer.fit(clips(), StopRequest()).step == 6
    assert caplog.text.count("CANNOT WRITE") == 1 and run.heard.pictures == [2, 4, 6]


def test_counts_left_out_steps_and_goes_on() -> None:
    run = Run(FakeLearner(BAD, GOOD, BAD, GOOD), Schedule(steps=6, log_every=1, max_skipped=2))
    run.trainer.fit(clips(), StopRequest())
    assert [metrics.skipped for metrics in run.heard.steps] == [1, 1, 2, 2, 2, 2]


def test_ends_after_a_run_of_left_out_steps_and_hands_over_the_batches() -> None:
    run = Run(FakeLearner(GOOD, BAD), Schedule(steps=50, max_skipped=3, checkpoint_every=1))
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 4"):
        run.trainer.fit(clips(), StopRequest())
    assert run.heard.skipped == [1, 2, 3]
    assert run.saved[-1] == (4, pytest.approx(float("nan"), nan_ok=True), None, False, 3, 3, True)


def test_a_run_that_failed_at_a_step_with_nothing_to_look_at_goes_on() -> None:
    failed = Run(FakeLearner(BAD), Schedule(steps=50, validate_every=40, max_skipped=3), [30.0])
    with pytest.raises(TrainingError, match="up to step 3"):
        failed.trainer.fit(clips(), StopRequest())
    resumed = Run(FakeLearner(), Schedule(steps=5, validate_every=4), [30.0, 31.0])
    resumed.trainer.take_up(failed.saved[-1])
    assert resumed.trainer.fit(clips(), StopRequest(), start=3) == (5, 0.5, False)
    assert [step for step, _, _ in resumed.heard.validations] == [4, 5]


def test_overflow_of_half_precision_is_no_failure() -> None:
    run = Run(FakeLearner(*[OVERFLOW] * 5, GOOD), Schedule(steps=8, max_skipped=3))
    assert run.trainer.fit(clips(), StopRequest()).step == 8
    assert run.trainer.skipped == 5


def test_out_of_memory_says_where() -> None:
    run = Run(FakeLearner(torch.OutOfMemoryError("tried to allocate 3 GiB")), Schedule(steps=3))
    with pytest.raises(TrainingError, match="out of memory on cpu in step 1: tried to allocate 3 GiB"):
        run.trainer.fit(clips(), StopRequest())
    assert not run.saved


def test_a_periodic_checkpoint_that_fails_is_loud_and_the_last_one_fatal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Run(FakeLearner(), Schedule(steps=4, checkpoint_every=2))
    tried: list[int] = []

    def save(milestone: Milestone) -> None:
        tried.append(milestone.step)
        raise OSError(28, "No space left on device")

    run.trainer.save = save
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(TrainingError, match=r"step 4 cannot be written.*No space"),
    ):
        run.trainer.fit(clips(), StopRequest())
    assert tried == [2, 4] and "CANNOT BE WRITTEN" in caplog.text and not run.heard.saved


def test_a_best_that_could_not_be_written_is_none(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(FakeLearner(), Schedule(steps=4, validate_every=1), [30.0, 33.0, 32.0, 31.0])
    write = run.trainer.save

    def save(milestone: Milestone) -> None:
        if milestone.step == 2:
            raise OSError(28, "No space left on device")
        write(milestone)

    run.trainer.save = save
    run.trainer.fit(clips(), StopRequest())
    assert [(m.step, m.is_best, m.best.step) for m in run.saved] == [
        (1, True, 1),
        (3, True, 3),
        (4, False, 3),
    ]


def test_steps_left_out_are_counted_over_sessions() -> None:
    first = Run(FakeLearner(BAD), Schedule(steps=9, stop_at=2, max_skipped=3))
    first.trainer.fit(clips(), StopRequest())
    (saved,) = first.saved
    assert (saved.skipped, saved.skipped_in_a_row) == (2, 2)
    second = Run(FakeLearner(BAD), Schedule(steps=9, max_skipped=3))
    second.trainer.take_up(saved)
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 3"):
        second.trainer.fit(clips(), StopRequest(), start=2)


def test_tells_of_checkpoints_before_they_are_written_and_which_clips_a_step_had() -> None:
    run = Run(FakeLearner(), Schedule(steps=2, log_every=1, checkpoint_every=1, accumulate=2))
    run.heard.on_checkpoint = lambda step: run.progress.append(-step)
    run.trainer.fit(clips(), StopRequest())
    assert run.progress == [1, -1, 2, -2]
    first, second = (metrics.clips for metrics in run.heard.steps)
    step_of = clips()
    assert first == checksum_of([next(step_of), next(step_of)]) != second


def test_says_when_the_clips_run_out() -> None:
    with pytest.raises(TrainingError, match="no more clips at step 2"):
        Run(FakeLearner(), Schedule(steps=3)).trainer.fit(iter([next(clips())]), StopRequest())


def test_every_process_gives_its_part_of_a_checkpoint_and_only_the_main_one_speaks() -> None:
    learner = FakeLearner()
    learner.place = Second(device=torch.device("cpu"), rank=1, world=2)
    run = Run(learner, Schedule(steps=2, log_every=1, checkpoint_every=1))
    run.trainer.fit(clips(), StopRequest())
    assert [milestone.step for milestone in run.saved] == [1, 2]
    assert not run.heard.steps and not run.progress
