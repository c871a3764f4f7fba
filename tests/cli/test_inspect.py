import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.images import image_size


def test_ranks_how_a_spike_file_may_be_read(shared_data: Path, tmp_path: Path, spk) -> None:
    path, picture = shared_data / "gopro_spike_pair" / "000226.dat", tmp_path / "picture.png"
    facts = spk("inspect", path, "-o", picture, "--json").json
    assert facts["kind"] == "dat" and facts["bytes"] == 2_534_400
    first, *others = facts["candidates"]
    assert first.pop("score") > 0.98
    reading = {"height": 360, "width": 640, "frames": 88, "bit_order": "lsb", "padding": "none"}
    assert first == reading | {"valid_columns": [[0, 640]], "in_period": True}
    assert others and all(other["score"] < 0.99 for other in others)
    assert min(image_size(picture)) > 100


def test_draws_the_best_three_for_people(shared_data: Path, tmp_path: Path, spk, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = spk("inspect", shared_data / "gopro_spike_pair" / "000226.dat")
    assert "picture: 000226-candidates.png" in ran.out and "frame period" in ran.out
    assert image_size(tmp_path / "000226-candidates.png")[1] > 3 * 600


def test_tells_what_is_in_a_store(store: Path, tmp_path: Path, spk) -> None:
    facts = spk("inspect", store, "-o", tmp_path / "picture.png", "--json").json
    assert facts.keys() >= {"kind", "sequences", "frames", "stages", "stats", "fingerprint"}
    assert (facts["kind"], facts["sequences"], facts["frames"]) == ("store", 4, 12)
    assert facts["stages"] == ["ingest", "voxelize/k4"] and facts["stats"]["k4"]["num_bins"] == 4
    assert image_size(tmp_path / "picture.png")
    ran = spk("inspect", store)
    assert "4 sequences, 12 frames" in ran.out and "train/train_0000" in ran.out
    assert facts["fingerprint"][:16] in ran.out
    assert len(facts["timing"]) == 4 and facts["timing"][0]["dialect"] == "csv"
    assert "too few to tell" in ran.out


def test_tells_how_a_run_stands(trained: Path, store: Path, spk) -> None:
    facts = spk("inspect", trained, "--json").json
    assert (facts["kind"], facts["step"], facts["steps"], facts["store"]) == ("run", 4, 4, str(store))
    ran = spk("inspect", trained)
    assert "finished, step 4 of 4" in ran.out and str(facts["parameters"]) in ran.out
    assert "step_000004, best, last" in ran.out and "as it was learnt from" in ran.out


def test_tells_what_a_checkpoint_is(trained: Path, spk) -> None:
    path = trained / "checkpoints" / "best.safetensors"
    facts = spk("inspect", path, "--json").json
    assert (facts["kind"], facts["num_bins"], facts["voxels"]) == ("checkpoint", 4, "k4")
    assert facts["trainable"] == facts["parameters"] > 0
    assert "cross_attention" in spk("inspect", path).out


@pytest.mark.parametrize("name", ["log.txt", "samples/step_000004.png", "metrics.jsonl"])
def test_other_files_are_refused(name: str, trained: Path, spk) -> None:
    spk("inspect", trained / name).assert_fails(2, name, "none of a .dat, .npy or .npz, a checkpoint")


def test_a_log_shows_its_dialect_and_how_good_its_times_are(tmp_path: Path, spk) -> None:
    rows = [
        f"{k},{1000 + 40_000 * k + 9000 * (k > 20)},{9000 + 40_000 * k + 9000 * (k > 20)}" for k in range(30)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["frame,start_us,stop_us", *rows, "x,1,0"]) + "\n")
    facts = spk("inspect", tmp_path / "log.csv", "--json").json
    assert (facts["kind"], facts["dialect"], facts["rows"]) == ("log", "csv", 30)
    assert (facts["timing"][0]["rate_hz"], facts["timing"][0]["steps"]) == (25.0, 1)
    ran = spk("inspect", tmp_path / "log.csv")
    assert "dialect csv: 30 exposures" in ran.out and "25.000 Hz" in ran.out and "1 step" in ran.out
    assert "step at frame 21 (line 23), 9 ms" in ran.out and "line 32: exposure [1, 0) is reversed" in ran.out
    spk("inspect", tmp_path / "log.csv", "-o", tmp_path / "x.png").assert_fails(2, "no picture of a log")


def test_an_array_s_axes_are_told(shared_data: Path, tmp_path: Path, spk) -> None:
    path = shared_data / "real_npz" / "spikingsim_real_spike.npz"
    facts = spk("inspect", path, "-o", tmp_path / "a.png", "--json").json
    reading = {"key": "arr_0", "axes": "HWT", "frames": 500, "height": 250, "width": 400}
    assert facts == {"kind": "array", "bytes": path.stat().st_size} | reading
    assert image_size(tmp_path / "a.png")[1] > 400
    np.save(tmp_path / "spikes.npy", np.zeros((2, 8, 8), np.uint8))
    spk("inspect", tmp_path / "spikes.npy").assert_fails(1, "spikes.npy", "0 arrays of three axes")


def test_a_folder_of_something_else_is_refused(made_raw: Path, tmp_path: Path, spk) -> None:
    spk("inspect", made_raw).assert_fails(2, str(made_raw), "neither a store", "in it")
    spk("inspect", tmp_path).assert_fails(2, str(tmp_path), "neither a store")


def test_a_file_cut_short_is_no_whole_number_of_frames(tmp_path: Path, spk) -> None:
    (tmp_path / "short.dat").write_bytes(bytes(12_499))
    spk("inspect", tmp_path / "short.dat").assert_fails(1, "short.dat", "12499 bytes", "copy it again")


def test_a_damaged_store_names_the_file(store: Path, raw: Path, tmp_path: Path, spk) -> None:
    spk("ingest", raw, "-o", tmp_path / "store", "-m", "simulated")
    shard = next(path for path in (tmp_path / "store").glob("train/*/blurry/c/**/*") if path.is_file())
    shard.unlink()
    spk("inspect", tmp_path / "store").assert_fails(1, str(shard), "missing")


def test_a_run_is_drawn_anew(trained: Path, tmp_path: Path, spk) -> None:
    assert "picture: " in spk("inspect", trained, "-o", tmp_path / "x.png").out
    assert image_size(tmp_path / "x.png")


def test_a_checkpoint_has_no_picture(trained: Path, tmp_path: Path, spk) -> None:
    path = trained / "checkpoints" / "best.safetensors"
    spk("inspect", path, "-o", tmp_path / "x.png").assert_fails(2, "x.png", "checkpoint")


def test_damaged_files_of_a_run_are_named_with_code_4(trained: Path, tmp_path: Path, spk) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "run.json").write_text("{")
    ran = spk("inspect", run)
    assert ran.code == 4 and "damaged: " in ran.out and "run.json" in ran.out and "step 4 of 4" in ran.out
    as_json = spk("inspect", run, "--json")
    assert as_json.code == 4 and "run.json" in json.loads(as_json.out)["problems"][0]


SMALL = ("tiny", "clip.crop=16", "batch_size=1")


def test_tells_what_a_config_costs(spk) -> None:
    facts = spk("inspect", *SMALL, "--json").json
    assert facts["kind"] == "config" and facts["store"] is None and facts["num_bins"] == 32
    assert facts["clip"] == {"batch": 1, "frames": 2, "height": 16, "width": 16}
    names = [part["name"] for part in facts["parts"]]
    assert names[:4] == ["conv_first", "spike_encoder", "stage1", "fusions"] and names[-2:] == [
        "stage8",
        "tail",
    ]
    for key, total in (("parameters", facts["parameters"]), ("flops", facts["flops"]["forward"])):
        assert sum(part[key] for part in facts["parts"]) == total
        for part in facts["parts"]:
            assert sum(piece[key] for piece in part.get("pieces", [])) in (0, part[key])
    saved = sum(part["saved_bytes"] for part in facts["parts"]) + facts["between_bytes"]
    assert saved == facts["saved_bytes"]["step"] == facts["saved_bytes"]["step_checkpointed"]
    assert 2.5 < facts["flops"]["step"] / facts["flops"]["forward"] < 3.5
    assert facts["flops"]["step_checkpointed"] == facts["flops"]["step"]
    stage = next(part for part in facts["parts"] if part["name"] == "stage1")
    assert [piece["name"] for piece in stage["pieces"]][-3:] == ["offset convs", "deformable conv", "pa_fuse"]


def test_shows_a_config_s_cost_with_stages_recomputed(store: Path, spk) -> None:
    ran = spk("inspect", *SMALL, f"store={store}", "network.checkpoint_stages=[1,8]")
    assert "batch 1, 2 frames of 16x16" in ran.out and "pa_fuse" in ran.out
    assert f"voxel grids: 4 bins of {store}" in ran.out and "with stages 1, 8 checkpointed" in ran.out
    bare = spk("inspect", *SMALL, "network.fusion=none", "--json").json
    assert bare["num_bins"] is None and "fusions" not in [part["name"] for part in bare["parts"]]


def test_a_config_takes_settings_and_other_things_do_not(store: Path, tmp_path: Path, spk) -> None:
    (tmp_path / "mine.yaml").write_text("network: {depth: 3}\n")
    spk("inspect", tmp_path / "mine.yaml").assert_fails(2, "network.depth: unknown key")
    spk("inspect", "tiny", "clip.crop=4").assert_fails(2, "clip: crop 4 must be at least 8")
    spk("inspect", *SMALL, "network.memory_gb=1.0e-4").assert_fails(
        2, "memory_gb=0.0001", "cannot be kept below"
    )
    spk("inspect", store, "clip.crop=16").assert_fails(2, "settings are of a config", "is a store")
    spk("inspect", "tiny", "-o", "x.png").assert_fails(2, "no picture of a config")
    spk("inspect", "tinny").assert_fails(2, "tinny")
