import hashlib
import json
import shutil
from dataclasses import replace
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


@pytest.fixture
def published(trained: Path, tmp_path: Path) -> Path:
    """The RGB part of the small network, as others publish theirs."""
    import torch

    from model.checkpoint import load_network
    from model.network import build_network

    config = replace(load_network(trained)[0].config, fusion="none")
    path = tmp_path / "006_VRT_videodeblurring_GoPro.pth"
    torch.save({"params": build_network(config, 0).state_dict()}, path)
    return path


def test_published_weights_are_a_row_beside_a_trained_network(
    published: Path, trained: Path, tmp_path: Path, spk
) -> None:
    ran = spk("evaluate", trained, "--compare", f"vrt={published}", "-o", tmp_path / "eval", "--json")
    assert ran.json["baselines"]["vrt"]["frames"] == 3
    page = Path(ran.json["report"]).read_text()
    assert f"{published}, published weights<" in page


def test_published_weights_are_evaluated_by_themselves(
    published: Path, store: Path, tmp_path: Path, spk
) -> None:
    spk("evaluate", published).assert_fails(2, f"spk evaluate {published} STORE")
    assert "(published weights)" in spk("evaluate", published, store, "--dry-run").out
    ran = spk("evaluate", published, store, "--json")
    folder = tmp_path / "eval" / "rgb8-all"
    assert ran.json["report"] == str(folder / "report.html")
    summary = json.loads((folder / "summary.json").read_text())["networks"]["restored"]
    assert (summary["step"], summary["trained_on"], summary["tiling"]["num_frames"]) == (None, {}, 18)
    assert summary["digest"] == f"sha256:{hashlib.sha256(published.read_bytes()).hexdigest()}"
    assert "published weights" in spk("compare", tmp_path, tmp_path).out


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


def test_other_spikes_are_shown_with_what_they_change(trained: Path, tmp_path: Path, spk) -> None:
    command = ["evaluate", trained, "-o", tmp_path, "--thresholds", "1,2"]
    command += ["--ablate", "spikes=zero", "--ablate", "spikes=shift:±4", "--ablate", "spikes=shift:+5"]
    plan = spk(*command, "--dry-run")
    assert "and again with other spikes: spikes=zero, spikes=shift:+4, spikes=shift:-4, " in plan.out
    ran = spk(*command)
    assert "spikes=shift:-4" in ran.out and "spike_only threshold 2" in ran.out
    assert "other spikes, difference to restored" in ran.out and "its spikes" in ran.out
    found = json.loads((tmp_path / "rgb8-all" / "summary.json").read_text())
    # Gaps are of 4 spike frames: 5 further on, the last of the three exposures leaves the recording.
    assert found["spikes"]["differences"]["spikes=shift:+5"]["frames"] == 2
    assert found["ablations"]["spikes=shift:+5"]["left_out_frames"] == 1
    assert found["methods"]["spikes=shift:+4"]["frames"] == 3


def test_changes_to_spikes_that_mean_nothing_are_told_what_there_is(trained: Path, spk) -> None:
    spk("evaluate", trained, "--ablate", "spikes=noise").assert_fails(2, "spikes=noise", "spikes=shuffle")
    spk("evaluate", trained, "--thresholds", "2,0").assert_fails(2, "threshold 0")
    spk("evaluate", trained, "--ablate", "spikes=shift:+900").assert_fails(2, "shift:+900", "shift by less")


def test_frames_without_a_sharp_one_are_scored_by_agreement(trained: Path, tmp_path: Path, spk) -> None:
    ran = spk("evaluate", trained, "-o", tmp_path, "--protocol", "no-reference", "--json")
    assert ran.json["protocols"]["no-reference"].keys() >= {"psnr_reblur", "spikes", "frames"}
    assert "PSNR_REBLUR dB" in ran.err and Path(ran.json["report"]).is_file()
