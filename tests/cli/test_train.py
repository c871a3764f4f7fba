import shutil
from pathlib import Path

import pytest

from model.checkpoint import read_info
from model.train import TrainReport

KEYS = {"run", "step", "loss", "val_psnr", "checkpoint"}


def test_a_dry_run_says_what_would_be_done(
    store: Path, tmp_path: Path, small_training: list[str], trained: Path, spk
) -> None:
    command = ("train", "tiny", *small_training, f"store={store}", "-o", tmp_path / "run", "--dry-run")
    plan = spk(*command, "--json").json
    assert plan.keys() >= KEYS | {"dry_run", "steps", "clips", "parameters"}
    assert (plan["step"], plan["steps"], plan["clips"], plan["loss"]) == (0, 4, 4, None)
    assert plan["parameters"] == spk("inspect", trained, "--json").json["parameters"]
    ran = spk(*command)
    assert "from step 0 to 4" in ran.out and "4 clips to learn from" in ran.out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_fine_tuning_says_how_much_would_learn(
    store: Path, tmp_path: Path, small_training: list[str], trained: Path, spk
) -> None:
    start = f"init={trained / 'checkpoints' / 'last.safetensors'}"
    command = ("train", "tiny", *small_training, f"store={store}", start, "-o", tmp_path / "run", "--dry-run")
    plan = spk(*command, "lora.rank=1", "--json").json
    assert plan["trainable"] < spk(*command, "--json").json["trainable"] < plan["parameters"]
    assert f"of which {plan['trainable']} learn" in spk(*command, "lora.rank=1").out
    ran = spk(*command, "lora.rank=1", "lora.layers=[qkw]")
    ran.assert_fails(2, "lora.layers: 'qkw'", "kinds are qkv, proj")


def test_a_dry_run_tells_the_learning_rate_and_the_phases(
    store: Path, tmp_path: Path, small_training: list[str], spk
) -> None:
    phases = "phases=[{start: 1, batch_size: 1}, {start: 3, crop: 24, batch_size: 1}]"
    command = (
        "train",
        "tiny",
        *small_training,
        f"store={store}",
        phases,
        "-o",
        tmp_path / "run",
        "--dry-run",
    )
    ran = spk(*command)
    assert "learning rate, cosine: 0.004 in step 1, 0.004 in step 2, 0.00101 in step 4" in ran.out
    assert ", learning rate x 1\nspikes: " in ran.out
    assert "steps 2 to 3: batches of 1 clip, 2 frames of 16x16\n" in ran.out
    plan = spk(*command, "--json").json
    assert plan["learning_rate"][0] == {"step": 1, "lr": 0.004}
    assert [(phase["start"], phase["clip"]["crop"]) for phase in plan["phases"]] == [
        (0, 16),
        (1, 16),
        (3, 24),
    ]
    assert {pace["part"]: pace["multiplier"] for pace in plan["paces"]}["flow"] == 0.25
    spk(*command, "phases=[{start: 1, corp: 24}]").assert_fails(2, "phases[0].corp", "did you mean 'crop'")


def test_a_dry_run_of_a_resumed_run_starts_where_it_is(store: Path, trained: Path, spk) -> None:
    command = ("train", trained / "config.yaml", "-o", trained, "--resume", "--dry-run")
    assert spk(*command, "steps=9", "--json").json["step"] == 4
    spk(*command, "seed=9").assert_fails(2, "seed", "0 in the run, 9 now")


def test_goes_on_with_more_steps_and_other_threads(trained: Path, tmp_path: Path, spk) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    ran = spk("train", run / "config.yaml", "steps=5", "--workers", 1, "-o", run, "--resume", "--json")
    assert ran.json.keys() >= KEYS and ran.json["step"] == 5
    info = read_info(run / "checkpoints" / "last.safetensors")
    assert info.config["workers"] == 1 and info.config["steps"] == 5


def test_the_default_run_folder_is_named_by_the_config(
    store: Path, tmp_path: Path, small_training: list[str], spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = spk("train", "tiny", *small_training, f"store={store}", "--dry-run", "--json")
    assert ran.json["run"] == "runs/tiny"


def test_a_stopped_run_says_how_to_go_on_with_exit_code_75(
    store: Path, tmp_path: Path, spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "my run"
    report = TrainReport(
        run=run, step=3, loss=0.5, val_psnr=None, checkpoint=run / "checkpoints" / "last", interrupted=True
    )
    monkeypatch.setattr("model.train.train", lambda *arguments, **options: report)
    ran = spk("train", "tiny", f"store={store}", "-o", run)
    assert ran.code == 75
    assert f"go on with: spk train '{run}/config.yaml' -o '{run}' --resume" in ran.out
    as_json = spk("train", "tiny", f"store={store}", "-o", run, "--json")
    assert as_json.code == 75 and '"step": 3' in as_json.out and as_json.out.count("\n") == 1


def test_a_profile_is_shown_and_left_in_the_run(
    store: Path, tmp_path: Path, small_training: list[str], spk
) -> None:
    run = tmp_path / "run"
    few = ["steps=6", "validate_every=0", "checkpoint_every=0", "sample_every=0"]
    ran = spk("train", "tiny", *small_training, *few, f"store={store}", "-o", run, "--profile", "--json")
    profile = ran.json["profile"]
    assert profile["trace"] == str(run / "profile" / "trace.json.gz") and profile["steps"] == 1
    assert (run / "profile" / "table.txt").read_text().startswith("profile of 1 steps of")
    assert "data wait" in ran.err and "stage1" in ran.err
    assert "data wait" in (run / "log.txt").read_text()
