"""From recordings to a report, through the commands that users type."""

import json
from pathlib import Path

import pytest

from model.checkpoint_file import load_tensors

RUN_FOLDER = (
    *("config.yaml", "run.json", "log.txt", "metrics.jsonl", "tensorboard/events.*"),
    *("checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/step_000006.safetensors"),
    *("samples/step_000004.png", "samples/step_000006.png"),
    *("eval/rgb8-all/summary.json", "eval/rgb8-all/report.html"),
    *("eval/rgb8-all/per_sequence.csv", "eval/rgb8-all/per_frame.csv"),
)
STAGE = {"store", "sequences", "frames", "written", "skipped", "quarantined", "seconds"}
TRAIN = {"run", "step", "loss", "val_psnr", "checkpoint"}
EVALUATE = {"protocols", "baselines", "report"}


def test_simulated_recordings_become_a_report(
    tmp_path: Path, small_scenes: list[str], small_training: list[str], spk
) -> None:
    raw, store, run = (tmp_path / name for name in ("raw", "store", "run"))
    simulated = spk("simulate", "scenes", "-o", raw, *small_scenes, "--workers", 1, "--json").json
    assert (simulated["sequences"], simulated["frames"], simulated["written"]) == (4, 12, 4)

    ingested = spk("ingest", raw, "-o", store, "--manifest", "simulated", "--json").json
    assert ingested.keys() >= STAGE and (ingested["sequences"], ingested["frames"]) == (4, 12)
    voxelized = spk("voxelize", store, "--bins", 8, "--json").json
    assert voxelized.keys() >= STAGE and voxelized["written"] == 4

    first = spk("train", "tiny", *small_training, f"store={store}", "-o", run, "--json").json
    assert first.keys() >= TRAIN and first["step"] == 4 and first["val_psnr"] > 5
    longer = ("train", run / "config.yaml", "steps=6", "-o", run, "--json")
    spk(*longer).assert_fails(2, str(run), "--resume")
    second = spk(*longer, "--resume").json
    assert second["step"] == 6 and Path(second["checkpoint"]).is_file()

    scores = spk("evaluate", run, "--json").json
    assert scores.keys() >= EVALUATE and scores["baselines"].keys() == {"blurry", "spike_only"}
    assert scores["protocols"]["rgb8-all"].keys() >= {"psnr", "ssim", "frames"}
    assert scores["report"] == str(run / "eval" / "rgb8-all" / "report.html")

    missing = [pattern for pattern in RUN_FOLDER if not list(run.glob(pattern))]
    assert not missing
    assert "<html" in Path(scores["report"]).read_text()
    summary = json.loads((run / "eval" / "rgb8-all" / "summary.json").read_text())
    assert summary["methods"]["restored"]["psnr"] == scores["protocols"]["rgb8-all"]["psnr"]

    about_store, about_run = spk("inspect", store, "--json").json, spk("inspect", run, "--json").json
    assert about_store["stages"] == ["ingest", "voxelize/k8"]
    assert (about_run["step"], about_run["steps"], about_run["sessions"]) == (6, 6, 2)
    assert about_run["store_fingerprint"] == about_store["fingerprint"]


def test_training_says_nothing_but_its_result_on_stdout(
    tmp_path: Path, small_scenes: list[str], small_training: list[str], spk
) -> None:
    raw, store, run = (tmp_path / name for name in ("raw", "store", "run"))
    scenes = [*small_scenes, "val=0", "test=0"]
    assert spk("simulate", "scenes", "-o", raw, *scenes, "-q", "--workers", 1) == (0, "", "")
    assert spk("ingest", raw, "-o", store, "-m", "simulated", "-q") == (0, "", "")
    assert spk("voxelize", store, "--bins", 4, "-q") == (0, "", "")
    ran = spk("train", "tiny", *small_training, f"store={store}", "-o", run, "steps=2", "-q", "--json")
    assert ran.json["val_psnr"] is None and ran.err.count("WARNING") == 1 == ran.err.count("\n")


@pytest.mark.parametrize(
    ("folder", "manifest", "sequences"),
    [("gopro_spike_pair", "gopro_pair", 1), ("sreds_t301_250x400", "sreds_pairs", 3)],
)
def test_real_recordings_can_be_learned_from(
    folder: str,
    manifest: str,
    sequences: int,
    shared_data: Path,
    tmp_path: Path,
    small_training: list[str],
    spk,
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    ingested = spk("ingest", shared_data / folder, "-o", store, "-m", manifest, "--json").json
    assert (ingested["sequences"], ingested["frames"]) == (sequences, sequences)
    voxelized = spk("voxelize", store, "--bins", 8, "--json").json
    assert voxelized["frames"] == sequences

    settings = ("steps=20", "clip.num_frames=1", "clip.crop=32", "log_every=5", "checkpoint_every=10")
    never = ("validate_every=0", "sample_every=0")
    command = ("train", "tiny", *small_training, *settings, *never, f"store={store}", "-o", run, "--json")
    first = spk(*command).json
    assert first["step"] == 20
    before = load_tensors(run / "checkpoints" / "last.safetensors", "model.")
    assert spk(*command, "steps=24", "--resume").json["step"] == 24
    after = load_tensors(run / "checkpoints" / "last.safetensors", "model.")
    changed = [name for name in before if not before[name].equal(after[name])]
    assert changed and all(tensor.isfinite().all() for tensor in after.values())
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15, 20, 24]
