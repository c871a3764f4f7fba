"""What a training run tells: values that cannot change and can be written down, and listeners that may be deaf."""

import dataclasses
import json

import pytest
from torch import nn

from model.training.events import Best, Listener, Milestone, StepMetrics, Validation

METRICS = StepMetrics(
    step=10,
    steps=100,
    loss=0.5,
    charbonnier=0.4,
    perceptual=0.1,
    lr=1e-4,
    grad_norm=2.0,
    skipped=1,
    steps_per_s=4.0,
    data_share=0.25,
    memory_bytes=1024,
    eta_s=22.5,
)


def tell_everything(listener: Listener) -> None:
    listener.on_step(METRICS)
    listener.on_validation(10, Validation(31.5, 8), True)
    listener.on_saved(10, True)
    listener.on_pictures(10, nn.Identity())
    listener.on_checkpoint(10)
    listener.on_skipped(10, float("nan"), 1.0)


def test_a_listener_need_not_listen_to_everything():
    class Validations(Listener):
        def __init__(self) -> None:
            self.heard: list[tuple[int, float, bool]] = []

        def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
            self.heard.append((step, validation.psnr, is_best))

    listener = Validations()
    tell_everything(listener)
    assert listener.heard == [(10, 31.5, True)]


def test_one_that_listens_to_all_hears_all():
    heard = []
    names = [name for name in vars(Listener) if name.startswith("on_")]
    assert sorted(names) == [
        *("on_checkpoint", "on_pictures", "on_saved", "on_skipped", "on_step", "on_validation")
    ]
    everything = type(
        "All", (Listener,), {name: lambda self, *what, name=name: heard.append(name) for name in names}
    )
    tell_everything(everything())
    assert heard == [*("on_step", "on_validation", "on_saved", "on_pictures", "on_checkpoint", "on_skipped")]


def test_metrics_cannot_be_changed_or_mixed_up():
    with pytest.raises(dataclasses.FrozenInstanceError):
        METRICS.loss = 0.0
    with pytest.raises(TypeError):
        StepMetrics(*dataclasses.astuple(METRICS))  # numbers in a row say nothing
    values = json.loads(json.dumps(dataclasses.asdict(METRICS)))
    assert StepMetrics(**values) == METRICS


def test_the_best_so_far_comes_back_from_a_checkpoint_header():
    milestone = Milestone(step=20, loss=0.25, best=Best(10, 31.5), is_best=False)
    header = json.loads(json.dumps({"best": milestone.best._asdict()}))
    assert header == {"best": {"step": 10, "val_psnr": 31.5}}
    assert Best(**header["best"]) == milestone.best
