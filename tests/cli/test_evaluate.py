import shutil
from pathlib import Path

import pytest


def test_a_dry_run_counts_and_writes_nothing(trained: Path, tmp_path: Path, spk) -> None:
    command = ("evaluate", trained, "-o", tmp_path / "eval", "--dry-run")
    plan = spk(*command, "--json").json
    assert (plan["sequences"], plan["frames"], plan["dry_run"]) == (1, 3, True)
    assert plan["protocols"] == {"rgb8-all": {"psnr": None, "ssim": None, "frames": 3}}
    ran = spk(*command)
    assert "3 frames of 1 sequence" in ran.out and "(step 4)" in ran.out
    assert not (tmp_path / "eval").exists()


def test_a_dry_run_looks_at_the_networks_to_compare(trained: Path, tmp_path: Path, spk) -> None:
    missing = tmp_path / "none.safetensors"
    ran = spk("evaluate", trained, "--compare", f"other={missing}", "--dry-run")
    ran.assert_fails(1, str(missing), "no such checkpoint")


def test_scores_beside_another_network(trained: Path, tmp_path: Path, spk) -> None:
    last = trained / "checkpoints" / "last.safetensors"
    ran = spk("evaluate", trained, "--compare", f"again={last}", "-o", tmp_path, "--split", "val", "--json")
    assert ran.json["protocols"]["rgb8-all"]["frames"] == 3
    assert ran.json["baselines"].keys() == {"again", "spike_only", "blurry"}
    assert Path(ran.json["report"]).is_file() and "PSNR" in ran.err


def test_every_protocol_in_one_pass(trained: Path, tmp_path: Path, spk) -> None:
    ran = spk(
        "evaluate", trained, "-o", tmp_path, "--split", "val", "--protocol", "kair", "--protocol", "all"
    )
    assert "protocol kair" in ran.out and "PSNR_Y dB" in ran.out and "PSNR_CHANGE dB" in ran.out
    assert "frames/s" in ran.out
    assert "Testing " in ran.err and "Average PSNR: " in ran.err and "SSIM_Y: " in ran.err
    made = {path.parent.name for path in tmp_path.glob("*/summary.json")}
    assert made >= {"rgb8-all", "kair", "kair-matlab-like", "spkdeblurnet", "ssdm", "shiftnet", "rgb8-change"}
    assert {path.parent.name for path in tmp_path.glob("*/log.txt")} == made
    assert (tmp_path / "kair" / "report.html").is_file() and (tmp_path / "timing.json").is_file()


def test_an_unknown_protocol_is_told_which_there_are(trained: Path, spk) -> None:
    spk("evaluate", trained, "--protocol", "psnr").assert_fails(2, "'psnr'", "rgb8-all", "lpips-vgg")
    spk("evaluate", trained, "--protocol", "lpips-vgg").assert_fails(2, "lpips_weights=[FILE, FILE]")


def test_the_store_it_was_trained_on_may_be_gone(trained: Path, tmp_path: Path, spk) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    gone = trained.parent / "store"
    moved = gone.rename(tmp_path / "moved")
    try:
        spk("evaluate", run).assert_fails(2, str(gone), f"spk evaluate {run} STORE")
        assert spk("evaluate", run, moved, "--dry-run", "--json").json["frames"] == 3
    finally:
        moved.rename(gone)


@pytest.mark.parametrize(
    ("checkpoint", "folder"),
    [("RUN", "RUN/eval"), ("RUN/checkpoints/best.safetensors", "RUN/eval")],
)
def test_writes_into_the_run_that_the_checkpoint_is_of(
    checkpoint: str, folder: str, trained: Path, spk
) -> None:
    path = checkpoint.replace("RUN", str(trained))
    report = spk("evaluate", path, "--dry-run", "--json").json["report"]
    assert report == folder.replace("RUN", str(trained)) + "/rgb8-all/report.html"


def test_a_name_is_used_once(trained: Path, spk) -> None:
    ran = spk("evaluate", trained, "--compare", "a=x", "--compare", "a=y")
    ran.assert_fails(2, "a=y", "twice")
