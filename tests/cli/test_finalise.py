import json
from pathlib import Path

import pytest


def test_parts_are_merged_and_say_how_to_go_on(raw: Path, store: Path, tmp_path: Path, spk) -> None:
    out = tmp_path / "store"
    command = ("ingest", raw, "-o", out, "-m", "simulated", "--parts")
    ran = spk(*command, "1/2")
    assert ran.code == 0 and f"next: the other parts, then spk finalise {out}" in ran.out
    spk("finalise", out).assert_fails(
        1, "ingest cannot be finished yet", "part 2/2 is not built", "--parts 2/2"
    )
    plan = spk(*command, "2/2", "--dry-run", "--json").json
    assert plan["dry_run"] and plan["parts"] == "2/2" and plan["sequences"] == 2
    assert spk(*command, "2/2", "--json").json["written"] == plan["written"]
    assert "could merge 2 parts of ingest: 4 sequences, 12 frames" in spk("finalise", out, "--dry-run").out
    assert not (out / "zarr.json").exists()
    ran = spk("finalise", out)
    assert "merged 2 parts of ingest: 4 sequences, 12 frames" in ran.out and "next: spk voxelize" in ran.out
    for part in ("1/2", "2/2"):
        assert spk("voxelize", out, "--bins", 4, "--parts", part).code == 0
    done = spk("finalise", out, "--json").json["stages"]["voxelize/k4"]
    assert (done["parts"], done["sequences"], done["written"]) == (2, 4, 4)
    assert spk("finalise", out, "--json").json["stages"] == {}
    assert "no parts wait" in spk("finalise", out).out
    shards = {path.relative_to(out): path.read_bytes() for path in out.rglob("c/**/*") if path.is_file()}
    assert shards == {
        path.relative_to(store): path.read_bytes() for path in store.rglob("c/**/*") if path.is_file()
    }


@pytest.mark.parametrize("part", ["0/3", "4/3", "x"])
def test_what_is_no_part_is_a_usage_error(part: str, tmp_path: Path, spk) -> None:
    spk("ingest", tmp_path, "-o", tmp_path / "s", "-m", "simulated", "--parts", part).assert_fails(2, part)
    spk("voxelize", tmp_path, "--parts", part).assert_fails(2, part)


def test_parts_can_be_dropped(raw: Path, tmp_path: Path, spk) -> None:
    out = tmp_path / "store"
    spk("ingest", raw, "-o", out, "-m", "simulated", "--parts", "1/2")
    spk("finalise", out, "--drop", "--dry-run").assert_fails(2, "--drop")
    assert spk("finalise", out, "--drop", "--json").json["dropped"] == ["ingest"]
    assert "dropped the parts of nothing" in spk("finalise", out, "--drop").out
    spk("finalise", out).assert_fails(1, "no store")


def test_frames_set_aside_are_listed_with_exit_code_3(raw: Path, tmp_path: Path, spk) -> None:
    missing = raw / "train" / "train_0000" / "sharp" / "000001.png"
    missing.unlink()
    command = ("ingest", raw, "-o", tmp_path / "store", "-m", "simulated", "--quarantine", "--parts")
    codes = [spk(*command, part).code for part in ("1/2", "2/2")]
    assert sorted(codes) == [0, 3]
    ran = spk("finalise", tmp_path / "store", "--json")
    assert ran.code == 3 and str(missing) in ran.err
    assert json.loads(ran.out)["stages"]["ingest"]["quarantined"][0]["path"] == str(missing)
