"""`spk align`: report, picture, exit codes, correction."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.images import image_size
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest


@pytest.fixture
def shifted(moving_raw: Path, tmp_path: Path, shift_log, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of three sequences, one of whose logs is off by 4."""
    raw = Path(shutil.copytree(moving_raw, tmp_path / "raw"))
    shift_log(raw / "train/train_0001", -4)
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def test_a_shifted_log_fails_the_check_and_is_drawn(shifted: Path, spk) -> None:
    ran = spk("align", shifted, "--check", "--json")
    assert ran.code == 4
    told = json.loads(ran.out)
    assert told["ok"] is False and told["applied"] == {} and told["picture"] == "store-alignment.png"
    verdicts = {one["sequence"]: (one["verdict"], one["offset"]) for one in told["sequences"]}
    assert verdicts == {
        "train/train_0000": ("aligned", 0),
        "train/train_0001": ("shifted", 4),
        "test/test_0000": ("aligned", 0),
    }
    one = told["sequences"][1]
    assert one["low"] < one["best"] < one["high"] and len(one["offsets"]) == len(one["error"]) == 25
    assert [frame["frame"] for frame in one["frames"]] == [f"{k:06d}" for k in range(5)]
    assert min(image_size(shifted.parent / "store-alignment.png")) > 200


def test_the_table_says_what_to_do(shifted: Path, spk) -> None:
    ran = spk("align", shifted, "--check", "-o", shifted.parent / "own.png")
    assert ran.code == 4 and "train/train_0001" in ran.out and "+4" in ran.out
    assert f"spk align {shifted} --apply" in ran.out and (shifted.parent / "own.png").is_file()


def test_a_correction_is_applied_once(shifted: Path, spk) -> None:
    first = spk("align", shifted, "--apply", "--json").json
    assert first["applied"] == {"train/train_0001": 4} and first["ok"] is True
    assert spk("align", shifted, "--apply", "--json").json["applied"] == {}
    assert spk("align", shifted, "--check", "--json").json["ok"] is True


def test_sound_sequences_alone_pass(shifted: Path, spk) -> None:
    told = spk("align", shifted, "--check", "--sequence", "*_0000", "--sweep", 8, "--json").json
    assert [one["sequence"] for one in told["sequences"]] == ["train/train_0000", "test/test_0000"]
    assert told["sweep"] == 8 and told["sequences"][0]["offsets"] == list(range(-8, 9))


def test_says_what_is_missing(shifted: Path, spk) -> None:
    spk("align", shifted).assert_fails(2, "say what to do", "--check")
    spk("align", shifted, "--check", "--sequence", "none/*").assert_fails(2, "fits none of 3")
    spk("align", shifted.parent, "--check").assert_fails(1, "no store here")


def test_inspect_shows_how_the_frames_fit(shifted: Path, spk) -> None:
    told = spk("inspect", shifted, "--json").json["r2"]
    assert told.keys() == {"train/train_0000", "train/train_0001", "test/test_0000"}
    assert all(0.6 < worst <= median <= 1 for median, worst in told.values())
    assert "R² median, worst" in spk("inspect", shifted).out
