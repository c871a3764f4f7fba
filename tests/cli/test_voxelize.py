import shutil
from pathlib import Path

import pytest


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def test_adds_grids_and_does_nothing_again(own_store: Path, spk) -> None:
    command = ("voxelize", own_store, "--bins", 8, "--json")
    plan = spk(*command, "--dry-run").json
    first = spk(*command).json
    assert plan["dry_run"] and plan["written"] == first["written"] == 4
    assert (first["sequences"], first["frames"], first["bytes"]) == (4, 12, 12 * 8 * 48 * 48)
    assert (spk(*command).json["written"], spk(*command).json["skipped"]) == (0, 4)
    assert spk("inspect", own_store, "--json").json["stats"].keys() == {"k4", "k8"}


def test_grids_may_have_a_name_and_be_compressed(own_store: Path, spk) -> None:
    ran = spk("voxelize", own_store, "--bins", 8, "--name", "small", "--codec", "zstd", "-q", "--json")
    assert ran.json["written"] == 4 and ran.err == ""
    assert spk("inspect", own_store, "--json").json["stats"]["small"]["num_bins"] == 8


def test_virtual_grids_take_no_bytes_and_are_used_like_others(own_store: Path, spk) -> None:
    ran = spk("voxelize", own_store, "--bins", 8, "--virtual", "--json").json
    assert (ran["written"], ran["bytes"]) == (4, 0)
    assert spk("inspect", own_store, "--json").json["stats"]["k8"]["num_bins"] == 8
    assert spk("verify", own_store, "--deep", "--json").json["ok"]
    spk("voxelize", own_store, "--virtual", "--codec", "lz4").assert_fails(2, "--codec lz4", "--virtual")


def test_says_how_to_go_on(own_store: Path, spk) -> None:
    assert f"next: spk train tiny store={own_store}" in spk("voxelize", own_store, "--bins", 2).out


def test_a_store_without_a_train_split_is_for_evaluation(
    tmp_path: Path, small_scenes: list[str], spk
) -> None:
    assert spk("simulate", "scenes", "-o", "raw", *small_scenes, "train=0", "val=0").code == 0
    assert spk("ingest", "raw", "-o", "store", "-m", "simulated").code == 0
    assert "next: spk evaluate RUN store" in spk("voxelize", "store", "--bins", 2).out
