"""Numbers that are not finite, and memory that runs out, at random steps of a training run."""

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint_file import load_tensors, read_header
from model.losses import CombinedLoss, LossTerms
from model.train import train
from model.training.config import TrainConfig
from model.training.learner import Learner
from pipeline.clips import ClipSource
from pipeline.errors import TrainingError
from pipeline.store import open_store
from tests.model.test_train import NETWORK, config, make_store
from tests.model.training.test_memory_report import ACTIVATIONS

SEED = 20261127
SMALL, FULL = 2, 100
STEPS, BATCH, MOST_IN_A_ROW = 5, 2, 2
PLACES = ("input", "loss", "gradient", "memory")
VALUES = (math.nan, math.inf, -math.inf)


@dataclass
class Faults:
    """What goes wrong in which steps (from 0) of the runs of this process."""

    place: str = ""
    value: float = math.nan
    steps: frozenset[int] = frozenset()
    now: int | None = None

    def at(self, place: str) -> bool:
        return self.place == place and self.now in self.steps


@dataclass
class Tally:
    """What became of the runs of a campaign.

    Attributes:
        n: trials; hit: steps that something was done to.
        poisoned: checkpoint files with a value that is not finite.
        miscounted: runs whose checkpoint or whose metrics do not tell of every step that was left out, with its clips.
        finished: runs that were done in the end, and learned from as many clips in every step.
    """

    n: int = 0
    hit: int = 0
    poisoned: int = 0
    miscounted: int = 0
    finished: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("n", "hit", "poisoned", "miscounted", "finished")}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    store = make_store(tmp_path_factory.mktemp("faults"), val=0)
    network = replace(NETWORK, drop_path_rate=0.0)  # whose draws are other ones for batches of another size
    often = {"validate_every": 0, "sample_every": 0, "checkpoint_every": 1, "keep_checkpoints": STEPS}
    return config(
        store, steps=STEPS, batch_size=BATCH, max_skipped=MOST_IN_A_ROW + 1, network=network, **often
    )


@pytest.fixture(scope="module")
def undisturbed(settings: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The loss of every step."""
    return losses_of(train(settings, tmp_path_factory.mktemp("undisturbed") / "run").run)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Put the faults where a step can have them."""
    faults = Faults()
    step, inputs, clip = Learner.step, Learner._inputs, Learner._clip
    backward, loss = Learner._backward, CombinedLoss.forward

    def in_step(learner: Learner, number: int, *about: Any) -> Any:
        faults.now = number
        try:
            return step(learner, number, *about)
        finally:
            faults.now = None

    def in_input(learner: Learner, sample: Any) -> Any:
        blurry, voxels = inputs(learner, sample)
        if faults.at("input"):
            blurry = blurry.clone()
            blurry.view(-1)[7] = faults.value
        return blurry, voxels

    def in_loss(module: CombinedLoss, *about: Any) -> LossTerms:
        return LossTerms(
            *(term * (faults.value if faults.at("loss") else 1) for term in loss(module, *about))
        )

    def in_gradient(learner: Learner) -> torch.Tensor:
        if faults.at("gradient"):
            learner.network.conv_first.weight.grad.view(-1)[3] = faults.value
        return clip(learner)

    def in_memory(learner: Learner, forward: Any, sample: Any, count: int) -> Any:
        if faults.at("memory") and len(sample.blurry) == BATCH:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return backward(learner, forward, sample, count)

    for where, name, instead in (
        (Learner, "step", in_step),
        (Learner, "_inputs", in_input),
        (Learner, "_clip", in_gradient),
        (Learner, "_backward", in_memory),
        (CombinedLoss, "forward", in_loss),
    ):
        monkeypatch.setattr(where, name, instead)
    monkeypatch.setattr("model.training.memory_report.measure_activations", lambda *about: ACTIVATIONS)
    return faults


def disturb(
    settings: TrainConfig, faults: Faults, undisturbed: list[float], count: int, folder: Path
) -> Tally:
    """Train `count` times, with one kind of fault each, and look at all that is on the disk then."""
    tally, rng = Tally(), np.random.default_rng(SEED)
    for number in range(count):
        run = folder / "run"
        faults.place = PLACES[number % len(PLACES)]
        faults.value = VALUES[int(rng.integers(len(VALUES)))]
        hit = rng.choice(STEPS, int(rng.integers(1, MOST_IN_A_ROW + 1)), replace=False)
        faults.steps = frozenset(map(int, hit))
        tally.n += 1
        tally.hit += len(faults.steps)
        what = f"{number}: {faults.value} in {faults.place} of steps {sorted(faults.steps)}"
        try:
            wrong = (short if faults.place == "memory" else left_out)(settings, faults, undisturbed, run)
        except TrainingError as error:
            wrong = [f"ended: {error}"]
        tally.finished += not wrong
        told = told_of(run, settings) == (sorted(faults.steps) if faults.place != "memory" else [])
        tally.miscounted += not told
        bad = [path.name for path in (run / "checkpoints").glob("step_*") if not is_finite(path)]
        tally.poisoned += len(bad)
        tally.faults += (
            [f"{what}: {wrong} {bad} {'' if told else 'miscounted'}"] if wrong or bad or not told else []
        )
        shutil.rmtree(run)
    return tally


def left_out(settings: TrainConfig, faults: Faults, undisturbed: object, run: Path) -> list[str]:
    """Train past the faults; what is wrong with the outcome."""
    report = train(settings, run)
    header = read_header(report.checkpoint)
    return ["not done"] * (report.step < STEPS) + ["count"] * (header["skipped"] != len(faults.steps))


def short(settings: TrainConfig, faults: Faults, undisturbed: list[float], run: Path) -> list[str]:
    """Train until there is no memory, then on as the error proposes: every step has the loss that it would have had."""
    with pytest.raises(TrainingError, match=rf"in step {min(faults.steps) + 1}: Tried") as caught:
        train(settings, run)
    changed = replace(settings, batch_size=BATCH // 2, optim=replace(settings.optim, accumulate=2))
    proposed = (
        f"batch_size={changed.batch_size} optim.accumulate={changed.optim.accumulate}" in caught.value.fix
    )
    train(changed, run, resume=(run / "run.json").exists())
    same = losses_of(run) == pytest.approx(undisturbed, rel=1e-3)
    return ["not proposed"] * (not proposed) + ["other losses"] * (not same)


def losses_of(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def told_of(run: Path, settings: TrainConfig) -> list[int]:
    """The steps of which the metrics say that they were left out, if they name the clips that these steps have."""
    source = ClipSource(open_store(settings.store), "train", "k4", settings.clip)
    told = []
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "left_out" in line:
            step = line["step"] - 1
            draws = [source.draw(n, settings.seed).clip for n in range(step * BATCH, (step + 1) * BATCH)]
            names = [f"{source.names[d.sequence]} {d.first_frame}..{d.first_frame + 1}" for d in draws]
            told.append(step if line["left_out"] == names else -1)
    return told


def is_finite(path: Path) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in load_tensors(path).values())


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_faults_poison_nothing(count, settings, faults, undisturbed, tmp_path, campaign):
    tally = disturb(settings, faults, undisturbed, count, tmp_path)
    campaign("NaN, Inf and no memory while training", **tally.figures, seed=SEED)
    assert (tally.poisoned, tally.miscounted, tally.finished, tally.faults) == (0, 0, count, [])


def take_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Learner._update
    monkeypatch.setattr(Learner, "_update", lambda learner, finite: update(learner, torch.ones_like(finite)))


def test_steps_that_are_not_left_out_are_not_saved(
    settings, faults, undisturbed, tmp_path, campaign, monkeypatch
):
    """The second line of defence: where such steps change the weights, there is no checkpoint of them."""
    take_every_step(monkeypatch)
    tally = disturb(settings, faults, undisturbed, 1, tmp_path)
    campaign("NaN and Inf, no step left out", **tally.figures, seed=SEED)
    assert tally.poisoned == 0 and tally.finished == 0
    assert all("no checkpoint was made of them" in fault for fault in tally.faults)


def test_without_both_defences_weights_are_poisoned(
    settings, faults, undisturbed, tmp_path, campaign, monkeypatch
):
    """Teeth: the same campaign finds checkpoints that are not finite."""
    take_every_step(monkeypatch)
    monkeypatch.setattr("model.training.records.require_finite", lambda tensors, step: None)
    tally = disturb(settings, faults, undisturbed, 1, tmp_path)
    campaign("NaN and Inf, no step left out, all saved", **tally.figures, seed=SEED)
    assert tally.poisoned > 0
