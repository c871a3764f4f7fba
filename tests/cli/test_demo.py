from pathlib import Path

import pytest

ROWS = ["blurry", "rgb_only", "spike_only", "fused"]


def test_goes_the_whole_way_and_is_quick_again(
    tmp_path: Path, small_scenes: list[str], small_training: list[str], spk
) -> None:
    scenes = [f"scenes.{setting}" for setting in small_scenes]
    command = ("demo", "-o", tmp_path / "demo", *small_training, "steps=2", *scenes, "--workers", 1, "--json")
    shown = spk(*command).json
    assert shown.keys() >= {"rows", "seconds", "store", "runs", "report"}
    assert [row["name"] for row in shown["rows"]] == ROWS
    assert all(row["psnr"] > 5 and 0 < row["ssim"] <= 1 for row in shown["rows"])
    assert "<html" in Path(shown["report"]).read_text()
    assert shown["runs"].keys() == {"rgb_only", "fused"}
    assert all((Path(run) / "run.json").is_file() for run in shown["runs"].values())
    assert spk(*command).json["rows"] == shown["rows"]


def test_stops_where_training_is_stopped(
    tmp_path: Path, small_scenes: list[str], spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.demo.train_side_by_side", lambda *_: False)
    scenes = [f"scenes.{setting}" for setting in small_scenes]
    ran = spk("demo", "-o", tmp_path / "demo", *scenes, "--workers", 1)
    assert ran.code == 75 and "same command again" in ran.out
    assert not (tmp_path / "demo" / "eval").exists()
