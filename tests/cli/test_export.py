from pathlib import Path

import pytest
import torch


def test_a_dry_run_says_what_goes_in_and_comes_out(trained: Path, tmp_path: Path, spk) -> None:
    file = tmp_path / "x.pt2"
    found = spk("export", trained, "-o", file, "--size", "32x16", "--frames", 3, "--dry-run", "--json").json
    shapes = {name: one["shape"] for name, one in found["about"]["inputs"].items()}
    assert shapes == {"blurry": [1, 3, 3, 32, 16], "voxels": [1, 3, 4, 32, 16]}
    assert found["dry_run"] and not file.exists()
    assert "dry run" in spk("export", trained, "-o", file, "--size", "32x16", "--dry-run").out


@pytest.mark.slow  # traces a whole network
def test_exports_a_trained_network_and_compares_it_on_its_recording(
    trained: Path, tmp_path: Path, spk
) -> None:
    file = tmp_path / "x.pt2"
    found = spk("export", trained, "-o", file, "--size", "32x16", "--json").json
    random, recorded = (one["clip"] for one in found["parity"])
    assert random == "random" and recorded.startswith(("test/", "val/"))
    assert all(one["max_difference"] < 1e-5 for one in found["parity"])
    assert found["bytes"] == file.stat().st_size and found["timing"]["ratio"] > 0
    program = torch.export.load(file).module()
    restored = program(torch.rand(1, 2, 3, 32, 16), torch.ones(1, 2, 4, 32, 16))
    assert restored.shape == (1, 2, 3, 32, 16) and restored.aminmax()[0] >= 0


def test_says_why_no_recording_was_compared(trained: Path, tmp_path: Path, spk) -> None:
    ran = spk("export", trained, "-o", tmp_path / "x.pt2", "--dry-run")
    assert "has no clip of 2 frames of 256x256" in ran.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("-o", "x.pt"), "programs are .pt2 or .onnx files"),
        (("-o", "x.pt2", "--size", "256"), "--size 256: not rows x columns"),
        (("-o", "x.pt2", "--size", "0x16"), "--size 0x16"),
    ],
)
def test_refuses(words: tuple[str, ...], problem: str, trained: Path, spk) -> None:
    spk("export", trained, *words).assert_fails(2, problem)
