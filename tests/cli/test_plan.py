import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.planning.plan import write_plan
from model.planning.planner import Foretold
from tests.model.planning.test_plan import CPU, PLAN


@pytest.fixture(scope="module")
def planned(store: Path, small_training: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that was measured here, of the smallest network and one clip a step."""
    from cli.presets import config_path
    from model.plan import plan
    from model.training.config import TrainConfig
    from pipeline.config import load_config

    settings = [*small_training, "batch_size=1", f"store={store}"]
    out = tmp_path_factory.mktemp("planned") / "plan.json"
    plan(load_config(TrainConfig, config_path(Path("tiny")), settings), out)
    return out


def test_a_plan_is_measured_and_can_be_trained_and_looked_at(planned: Path, tmp_path: Path, spk) -> None:
    made = json.loads(planned.read_text())
    (candidate,) = made["candidates"]
    assert (candidate["verdict"], candidate["batch_size"], candidate["crop"]) == ("chosen", 1, 16)
    assert 0.7 < candidate["predicted_bytes"] / candidate["measured_bytes"] < 1.5
    assert 0.7 < made["predicted"]["peak_bytes"] / made["measured"]["peak_bytes"] < 1.5
    assert made["measured"]["peak_bytes"] < made["budget_bytes"] < made["free_bytes"]
    assert made["measured"]["step_s"] > 0 and made["run"]["seconds"] > 4 * made["measured"]["step_s"]
    assert made["run"]["validations"] == 2 and made["run"]["checkpoint_bytes"] > 1000
    assert [path.name for path in planned.parent.iterdir()] == ["plan.json"]

    dry = spk("train", planned, "steps=3", "-o", tmp_path / "run", "--dry-run", "--json").json
    assert (dry["steps"], dry["clips"], dry["checkpoint_stages"]) == (3, 4, [])
    assert spk("inspect", planned, "--json").json == made
    assert "predicted and then measured" in spk("inspect", planned).out


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Planning that finds the same always; how it was asked is put here."""
    asked: dict[str, object] = {}

    def plan(config: object, out: Path, **options: object):
        asked.update(options, config=config, out=out)
        return PLAN

    def foretell(config: object, **options: object) -> Foretold:
        asked.update(options, config=config)
        return Foretold(device=CPU, budget_bytes=7 * 10**9, clips_per_step=8, candidates=PLAN.candidates)

    monkeypatch.setattr("model.plan.plan", plan)
    monkeypatch.setattr("model.plan.foretell", foretell)
    return asked


def test_says_what_was_found(spk, fake: dict[str, object]) -> None:
    command = (
        "plan",
        "s3://bucket/data",
        "base",
        "steps=7",
        "--batch",
        16,
        "--memory-gb",
        40,
        "--device",
        "cpu",
    )
    ran = spk(*command, "-o", "my plan.json")
    assert ran.code == 0, ran.err
    for words in ("2 x 4", "1, 7", "19.00 GB", "1.5 s", "20.00 GB", "25.0%", "note: a note", "5 d 19 h"):
        assert words in ran.out
    assert "next: spk train 'my plan.json' -o RUN" in ran.out
    config = fake["config"]
    assert (str(config.store), config.steps, config.parallel.device) == ("s3:/bucket/data", 7, "cpu")
    assert (fake["clips"], fake["memory_gb"], fake["overwrite"], str(fake["out"])) == (
        16,
        40,
        False,
        "my plan.json",
    )
    as_json = spk(*command, "--json").json
    assert (
        as_json["plan"] == "plan.json" and as_json["kind"] == "plan" and as_json["config"]["batch_size"] == 4
    )


def test_stretches_that_differ_are_listed(
    spk, fake: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = replace(PLAN.stretches[0], stop=100, flow_frozen=True)
    learns = replace(PLAN.stretches[0], start=100)
    changed = replace(PLAN, stretches=(frozen, learns))
    monkeypatch.setattr("model.plan.plan", lambda *arguments, **options: changed)
    out = spk("plan", "store", "base").out
    assert "1 to 100" in out and "frozen" in out and "101 to 300000" in out


def test_a_dry_run_measures_no_step(spk, fake: dict[str, object], tmp_path: Path) -> None:
    ran = spk("plan", "store", "base", "--dry-run")
    assert ran.code == 0 and "7.00 GB to use" in ran.out and "2 x 4" in ran.out
    assert spk("plan", "store", "base", "--dry-run", "--json").json["dry_run"] is True


def test_refuses_what_it_cannot_plan(spk, store: Path, tmp_path: Path) -> None:
    spk("plan", tmp_path / "none", "tiny", "-o", tmp_path / "p.json").assert_fails(1, "no store here")
    spk("plan", store, "tny").assert_fails(2, "did you mean tiny?")
    (tmp_path / "plan.json").write_text("mine")
    spk("plan", store, "tiny").assert_fails(2, "is there already", "--overwrite")


def test_train_and_inspect_say_what_is_wrong_with_a_plan(spk, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("{}")
    for command in ("train", "inspect"):
        spk(command, path).assert_fails(2, "not a plan")
    write_plan(path, replace(PLAN, device=replace(CPU, kind="tpu", name="TPU")))
    spk("train", path, "-o", tmp_path / "run").assert_fails(2, "planned for TPU", "spk plan store")
    spk("inspect", path, "seed=1").assert_fails(2, "settings are of a config")
