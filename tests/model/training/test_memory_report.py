from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from model import cost
from model.cost import Activations, ClipSize, Flops, Piece, clip_size, plan_recomputation
from model.losses import CombinedLoss, LossConfig
from model.network import NetworkConfig, build_network
from model.parallel import Parallel, ParallelConfig
from model.training import memory_report
from model.training.config import PhaseConfig, TrainConfig
from model.training.learner import Learner
from model.training.memory import ADVICE, DeviceUse
from model.training.memory_report import MemoryReport
from pipeline.clips import ClipConfig
from pipeline.config import build, to_plain

NUM_BINS = 4
Make = Callable[..., MemoryReport]


ACTIVATIONS = Activations(
    pieces=tuple(
        Piece(name=f"stage{n}.blocks", flops=10 + n, saved_bytes=size)
        for n, size in enumerate((100, 60, 30, 10, 30, 60, 100, 200), 1)
    ),
    between_bytes={"": 40, "stage1": 20},
)
"""Of one clip of 32x32 in float32; everything else goes with the number of pixels."""
FLOPS = Flops(forward={"": 200}, step=600)


def measured(config: NetworkConfig, clip: ClipSize, place: Parallel, flops: Flops) -> Activations:
    factor = 100_000 * clip.batch * clip.crop**2 // 32**2 // (1 if place.precision == "fp32" else 2)
    return Activations(
        pieces=tuple(replace(piece, saved_bytes=factor * piece.saved_bytes) for piece in ACTIVATIONS.pieces),
        between_bytes={part: factor * size for part, size in ACTIVATIONS.between_bytes.items()},
    )


@pytest.fixture
def make(tiny: Callable[..., NetworkConfig], monkeypatch: pytest.MonkeyPatch) -> Make:
    """A report on a device that has room for `share` of the activations that are wanted."""
    for module in (cost, memory_report):
        monkeypatch.setattr(module, "measure_activations", measured)
        monkeypatch.setattr(module, "count_flops", lambda *about, **how: FLOPS)

    def make(share: float | None, elsewhere: int = 0, **changes: Any) -> MemoryReport:
        config = replace(config_of(tiny(depths=(1,) * 9)), **changes)
        report = MemoryReport(learner_of(config), config, NUM_BINS, 1, (), None)
        if share is not None:
            wanted = report.held.fixed + int(share * report.held.activations)
            total = int((wanted + elsewhere) / (1 - memory_report.HEADROOM)) + 1
            report.use = DeviceUse(total=total, free=0, reserved=total - elsewhere, allocated=total // 2)
        return report

    return make


def config_of(network: NetworkConfig) -> TrainConfig:
    return TrainConfig(
        store=Path("store"),
        batch_size=4,
        clip=ClipConfig(num_frames=2, crop=32),
        network=network,
        loss=LossConfig(perceptual_weight=0.0),
        parallel=ParallelConfig(precision="bf16"),
    )


def learner_of(config: TrainConfig) -> Learner:
    place = Parallel(device=torch.device("cpu"), precision=config.parallel.precision)
    network = build_network(config.network, NUM_BINS)
    return Learner(network, CombinedLoss(config.loss), None, config.optim, place, steps=1, seed=0)


def test_adds_up_what_is_held(make: Make) -> None:
    report = make(None)
    held = report.held
    parameters = held.gradients
    assert held.moments == 2 * parameters and held.average == parameters and held.weights >= parameters
    assert held.batch == 4 * 4 * 2 * (2 * 3 + NUM_BINS) * 32 * 32
    assert held.activations == 4 * 650 * 50_000
    assert held.fixed == held.weights + 4 * parameters + held.batch
    assert [line.split("  ")[1] for line in report.lines()] == [
        "weights",
        "gradients",
        "optimizer moments",
        "averaged weights",
        "batch",
        "activations",
    ]


@pytest.mark.parametrize("share", [0.7, 0.4, 0.12])
def test_every_remedy_fits_and_keeps_the_clips_of_a_step(make: Make, share: float) -> None:
    report = make(share, elsewhere=1 << 20)
    assert report.budget == pytest.approx(share * report.held.activations, rel=1e-3)
    remedies = report.remedies()
    assert remedies
    for remedy in remedies:
        assert remedy.resumes and remedy.activations <= report.budget
        changed = apply(report.config, remedy.settings)
        assert changed.batch_size * changed.optim.accumulate == 4
        place = Parallel(device=torch.device("cpu"), precision=changed.parallel.precision)
        plan = plan_recomputation(changed.network, clip_size(changed, NUM_BINS, 1), place)
        assert remedy.activations == pytest.approx(plan.bytes if plan else remedy.activations, rel=1e-6)
    assert "keeps its clips" in report.advice() and remedies[0].settings in report.advice()


def apply(config: TrainConfig, settings: str) -> TrainConfig:
    """As if given on the command line."""
    plain = to_plain(config)
    for word in settings.split():
        *path, name = (key := word.partition("=")[0]).split(".")
        section = plain[path[0]] if path else plain
        section[name] = yaml.safe_load(word.removeprefix(f"{key}="))
    return build(TrainConfig, plain, "settings")


@pytest.mark.slow
def test_every_remedy_of_a_real_network_fits(tiny: Callable[..., NetworkConfig]) -> None:
    """What is scaled from one measurement, measured again at the proposed size of the batch."""
    config = replace(config_of(tiny(depths=(1,) * 9, fusion="none")), batch_size=2)
    learner = learner_of(config)
    report = MemoryReport(learner, config, NUM_BINS, 1, (), None)
    for remedy in report.remedies():
        changed = apply(config, remedy.settings)
        flops = cost.count_flops(changed.network, clip_size(changed, NUM_BINS, 1), backward=False)
        found = cost.measure_activations(
            changed.network, clip_size(changed, NUM_BINS, 1), learner.place, flops
        )
        memory_gb = changed.network.memory_gb
        stages = cost.choose_stages(found, memory_gb) if memory_gb else ()
        assert found.peak_bytes(stages) == pytest.approx(remedy.activations, rel=0.02)
        assert found.peak_bytes(stages) <= 1.02 * report.budget


def test_a_budget_comes_before_smaller_batches_and_float32_can_be_halved(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [remedy.settings.split() for remedy in make(0.7).remedies()]
    assert [words[0].split("=")[0] for words in settings] == ["network.memory_gb", "batch_size"]
    assert settings[1] == ["batch_size=2", "optim.accumulate=2"]
    wide = make(0.7, parallel=ParallelConfig(precision="fp32"))
    assert any(remedy.settings.startswith("parallel.precision=bf16") for remedy in wide.remedies())


def test_smaller_clips_only_where_nothing_else_fits(make: Make) -> None:
    report = make(0.1, batch_size=1, clip=ClipConfig(num_frames=2, crop=64))
    (remedy,) = report.remedies()
    assert not remedy.resumes and remedy.settings.startswith("clip.crop=")
    assert "begin a new run" in report.advice()


def test_with_phases_the_sizes_of_batches_and_clips_stay(make: Make) -> None:
    phases = (PhaseConfig(start=0, batch_size=2), PhaseConfig(start=9, crop=16, batch_size=4))
    remedies = make(0.5, phases=phases).remedies()
    assert remedies and all(remedy.settings.startswith("network.memory_gb=") for remedy in remedies)
    assert make(0.001, phases=phases).advice() == ADVICE


def test_where_not_even_the_weights_fit_the_settings_are_named(make: Make) -> None:
    report = make(-1.0)
    assert report.remedies() == []
    assert all(name in report.advice() for name in ("clip.crop", "accumulate", "network.memory_gb", "bf16"))


def test_an_estimate_that_fails_hides_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*about: Any) -> None:
        raise RuntimeError("an operator without a fake")

    monkeypatch.setattr(memory_report, "measure_activations", fail)
    report = make(None)
    assert report.budget is None and report.held.activations is None
    assert len(report.lines()) == 5 and "network.memory_gb" in report.advice()


def test_says_what_is_elsewhere_and_in_pieces(make: Make) -> None:
    report = make(0.5)
    report.use = DeviceUse(total=80 * 10**9, free=2 * 10**9, reserved=60 * 10**9, allocated=40 * 10**9)
    text = "\n".join(report.lines())
    assert "elsewhere            18.000 GB  held by CUDA and other processes" in text
    assert "and 20 GB set aside in pieces" in text and "expandable_segments" in text
    assert len(report.lines()) + len(report.advice().splitlines()) < 20
