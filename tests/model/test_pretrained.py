from pathlib import Path

import pytest
import torch

from model.checkpoint_file import save_checkpoint
from model.network import NetworkConfig, SpikeVRT, build_network
from model.pretrained import initialise
from pipeline.errors import CheckpointError

SMALL = {
    "embed_dims": (8,) * 8, "depths": (1,) * 8, "num_heads": (2,) * 8, "window": (2, 4, 4), "indep_reconsts": (),
    "deformable_groups": 2, "flow": "none", "spike_channels": (8,) * 4, "spike_heads": 2, "fusion_heads": 2,
}  # fmt: skip


def network(seed: int, fusion: str = "cross_attention", width: int = 8) -> SpikeVRT:
    torch.manual_seed(seed)
    return build_network(NetworkConfig(**SMALL | {"fusion": fusion, "embed_dims": (width,) * 8}), 4).eval()


def test_a_published_file_fills_the_rgb_part_and_the_output_is_that_of_the_rgb_network(
    tmp_path: Path,
) -> None:
    rgb, fused = network(1, "none"), network(2)
    torch.save({"params": rgb.state_dict()}, tmp_path / "vrt.pth")
    done = initialise(fused, tmp_path / "vrt.pth")
    assert (done.loaded, done.left_out) == (len(rgb.state_dict()), 0) and done.fresh > 0
    blurry, voxels = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(fused(blurry, voxels), rgb(blurry))


def test_our_checkpoint_fills_both_parts_with_its_averaged_weights(tmp_path: Path) -> None:
    trained, fresh = network(1), network(2)
    state = {f"model.{name}": value for name, value in network(3).state_dict().items()}
    state |= {f"ema.{name}": value.detach() for name, value in trained.named_parameters()}
    state["optimizer.steps"] = torch.zeros(1)
    save_checkpoint(tmp_path / "last.safetensors", state, {"step": 1, "config": {}, "num_bins": 4})
    done = initialise(fresh, tmp_path / "last.safetensors")
    assert done.fresh == 0
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))


def test_a_fused_checkpoint_gives_an_rgb_network_its_rgb_part(tmp_path: Path) -> None:
    fused, rgb = network(1), network(2, "none")
    torch.save(fused.state_dict(), tmp_path / "x.pth")
    done = initialise(rgb, tmp_path / "x.pth")
    assert done.left_out > 0 and torch.equal(rgb.conv_first.weight, fused.conv_first.weight)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_every_tensor_of_the_rgb_part_must_fit(tmp_path: Path, change: str) -> None:
    state = network(1, "none").state_dict()
    if change == "missing":
        del state["norm.weight"]
    elif change == "unknown":
        state["head.weight"] = torch.zeros(1)
    else:
        state["norm.weight"] = torch.zeros(9)
    torch.save(state, tmp_path / "x.pth")
    target = network(2)
    before = target.conv_first.weight.clone()
    with pytest.raises(CheckpointError, match=f"1 tensors do not fit the network:\n  {change}: "):
        initialise(target, tmp_path / "x.pth")
    assert torch.equal(target.conv_first.weight, before)


def test_half_a_spike_branch_is_refused(tmp_path: Path) -> None:
    state = network(1).state_dict()
    del state[next(name for name in state if name.startswith("fusions."))]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="missing: fusions"):
        initialise(network(2), tmp_path / "x.pth")


def test_a_damaged_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {f"model.{name}": value for name, value in network(1).state_dict().items()}
    save_checkpoint(
        path, state | {"optimizer.steps": torch.zeros(1)}, {"step": 1, "config": {}, "num_bins": 4}
    )
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="damaged"):
        initialise(network(2), path)
