from pathlib import Path

import numpy as np
import pytest

from pipeline.images import write_png
from pipeline.yaml_files import read_yaml


def test_films_scenes_and_keeps_what_is_there(tmp_path: Path, small_scenes: list[str], spk) -> None:
    command = ("simulate", "scenes", "-o", tmp_path / "raw", *small_scenes, "--workers", 1, "--json")
    plan = spk(*command, "--dry-run").json
    assert (plan["sequences"], plan["frames"], plan["dry_run"]) == (4, 12, True)
    assert not (tmp_path / "raw").exists()
    first = spk(*command).json
    assert (first["raw"], first["written"], first["skipped"]) == (str(tmp_path / "raw"), 4, 0)
    assert spk(*command).json["skipped"] == 4


def test_says_how_to_go_on(tmp_path: Path, small_scenes: list[str], spk) -> None:
    one = [setting for setting in small_scenes if setting[:4] not in ("trai", "val=", "test")]
    out = tmp_path / "my raw"
    ran = spk("simulate", "scenes", "-o", out, *one, "train=1", "val=0", "test=0")
    assert ran.code == 0 and "1 written, 0 kept of 1 sequence, 3 RGB frames" in ran.out
    assert f"spk ingest '{out}' --manifest simulated -o STORE" in ran.out


def test_films_what_the_user_has(tmp_path: Path, spk) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_png(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (3, 128, 128), np.uint8))
    settings = ("rig.num_frames=2", "rig.exposure_frames=8", "rig.gap_frames=2", "speed=[2, 4]")
    ran = spk("simulate", tmp_path / "photos", "-o", tmp_path / "raw", *settings, "--workers", 1, "--json")
    assert (ran.json["written"], ran.json["frames"]) == (3, 6)
    assert (
        spk("ingest", tmp_path / "raw", "-o", tmp_path / "store", "-m", "simulated", "--json").json["frames"]
        == 6
    )


def test_another_simulation_needs_overwrite(raw: Path, small_scenes: list[str], spk) -> None:
    command = ("simulate", "scenes", "-o", raw, *small_scenes, "rig.rate_hz=2000", "--workers", 1)
    spk(*command).assert_fails(2, str(raw), "--overwrite")
    assert spk(*command, "--overwrite", "--json").json["written"] == 4
    assert read_yaml(raw / "simulation.yaml")["config"]["rig"]["rate_hz"] == "2000"


def test_a_sweep_films_the_same_with_several_thresholds(tmp_path: Path, small_scenes: list[str], spk) -> None:
    command = ("simulate", "scenes", "-o", tmp_path / "raw", *small_scenes, "val=0", "test=0", "train=1")
    command += ("--sweep", "threshold=0.5,2,4", "--workers", 1, "--json")
    assert spk(*command, "--dry-run").json["sequences"] == 3 and not (tmp_path / "raw").exists()
    report = spk(*command).json
    assert (report["written"], report["frames"], len(report["data_sets"])) == (3, 9, 3)
    assert spk(*command).json["skipped"] == 3
    folders = [
        tmp_path / "raw" / f"threshold_{value}" / "train" / "train_0000" for value in ("0.5", "2", "4")
    ]
    facts = [read_yaml(folder / "camera.yaml")["camera"] for folder in folders]
    assert [fact.pop("threshold") for fact in facts] == [0.5, 2.0, 4.0]
    assert facts[0] == facts[1] == facts[2] and facts[0]["shot_noise"] > 0
    for name in ("blurry/000001.png", "sharp/000002.png", "exposures.csv"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    mean = [np.unpackbits(np.fromfile(folder / "spikes.dat", np.uint8)).mean() for folder in folders]
    assert mean[1] == pytest.approx(2 * mean[2], rel=0.03) and 1 > mean[0] > 2 * mean[1]
    spk(*command, "--sweep", "treshold=1,2").assert_fails(2, "did you mean threshold")
    spk(*command, "--sweep", "threshold=1,x").assert_fails(2, "rig.camera.threshold", "expected float")
