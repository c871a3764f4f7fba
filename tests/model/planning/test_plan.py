import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.checkpoint import versions
from model.planning import plan as plans
from model.planning.device import Device
from model.planning.plan import (
    Considered,
    Outlook,
    Plan,
    PlannedRun,
    PlannedStretch,
    StoreFacts,
    read_plan,
    settings_of,
    write_plan,
)
from model.training.config import TrainConfig
from pipeline.errors import ConfigError

GB = 10**9
CPU = Device(kind="cpu", name="CPU, 8 threads", total_bytes=64 * GB)
STEP = Outlook(step_s=1.5, data_share=0.25, peak_bytes=20 * GB)
PLAN = Plan(
    made="2026-01-02T03:04:05+00:00",
    config=TrainConfig(store=Path("store"), batch_size=4),
    device=CPU,
    free_bytes=50 * GB,
    budget_bytes=40 * GB,
    clips_per_step=8,
    predicted=STEP,
    measured=STEP,
    stretches=(
        PlannedStretch(start=0, stop=300_000, num_frames=5, crop=256, clips=8, flow_frozen=False, step_s=1.5),
    ),
    run=PlannedRun(
        seconds=5e5,
        start_s=9.0,
        validations=60,
        validation_s=20.0,
        checkpoints=300,
        checkpoint_s=2.0,
        checkpoint_bytes=GB,
        disk_bytes=4 * GB,
    ),
    candidates=(
        Considered(
            batch_size=4,
            accumulate=2,
            crop=256,
            checkpoint_stages=(1, 7),
            extra_flops=0.1,
            predicted_bytes=19 * GB,
            measured_bytes=None,
            step_s=None,
            verdict="not tried",
            reason="",
        ),
    ),
    notes=("a note",),
    store=StoreFacts(path="store", fingerprint="abc", clips=12),
    versions=versions(),
)


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, PLAN)
    assert read_plan(path) == PLAN
    values = json.loads(path.read_text())
    assert (values["kind"], values["format"]) == ("plan", 1)
    assert values["config"]["optim"]["lr"] == PLAN.config.optim.lr  # complete, with its defaults


def test_settings_can_be_changed(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", PLAN)
    assert read_plan(tmp_path / "plan.json", ["optim.lr=1.0e-5", "seed=3"]).config == replace(
        PLAN.config, seed=3, optim=replace(PLAN.config.optim, lr=1e-5)
    )
    with pytest.raises(ConfigError, match=r"config\.stepz: unknown key"):
        read_plan(tmp_path / "plan.json", ["stepz=3"])


def broken(change: Callable[[dict[str, Any]], object]) -> str:
    values = PLAN.to_json()
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a plan"),
        ("[]", "not a plan"),
        ("{}", "not a plan"),
        (broken(lambda values: values.update(format=2)), "format 2, and this program reads format 1"),
        (broken(lambda values: values.pop("device")), "device: missing"),
        (broken(lambda values: values["run"].update(seconds="long")), "run.seconds: expected float"),
        (broken(lambda values: values["config"].update(batch_size=0)), "batch_size 0 is below 1"),
        (broken(lambda values: values.update(config=[])), "config: expected a group"),
    ],
)
def test_refuses_what_is_no_plan(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_plan(path)
    assert str(path) in caught.value.problem


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The settings of a plan on some device, with some store."""
    path = tmp_path / "plan.json"
    write_plan(path, PLAN)

    def make(device: Device = CPU, fingerprint: str = "abc", overrides: tuple[str, ...] = ()) -> TrainConfig:
        monkeypatch.setattr(plans, "device_of", lambda wanted: device)
        monkeypatch.setattr(plans, "open_store", lambda store: SimpleNamespace(fingerprint=fingerprint))
        return settings_of(path, overrides)

    return make


def test_gives_the_settings_without_a_word_where_it_was_made(here, caplog: pytest.LogCaptureFixture) -> None:
    assert here() == PLAN.config
    assert here(overrides=("seed=1", "log_every=5")).seed == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            Device(kind="cuda", name="H100", total_bytes=80 * GB),
            "planned for CPU, 8 threads, and here is H100",
        ),
        (replace(CPU, total_bytes=16 * GB), "needs 20.0 GB, and CPU, 8 threads has 16.0 GB"),
    ],
)
def test_refuses_a_device_that_it_cannot_hold_on(here, device: Device, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        here(device)
    assert "spk plan store" in caught.value.fix


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": replace(CPU, name="CPU, 2 threads")}, "here is CPU, 2 threads"),
        ({"fingerprint": "def"}, "another state of the store"),
        ({"overrides": ("clip.crop=64", "seed=2", "batch_size=1")}, "another clip.crop, batch_size;"),
    ],
)
def test_warns_where_its_figures_may_not_hold(
    here, changes: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    here(**changes)
    (record,) = caplog.records
    assert words in record.getMessage() and "its figures may not hold" in record.getMessage()


def test_warns_of_another_torch(
    here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plans, "versions", lambda: {"torch": "9.9"})
    here()
    assert "this is torch 9.9" in caplog.text
