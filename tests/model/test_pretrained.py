import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint_file import save_checkpoint
from model.network import NetworkConfig, SpikeVRT, build_network
from model.pretrained import check_import, initialise
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


def test_the_constants_of_a_published_file_may_be_missing(tmp_path: Path) -> None:
    rgb, fused = network(1, "none"), network(2)
    constants = rgb.state_dict().keys() - {name for name, _ in rgb.named_parameters()}
    state = {name: tensor for name, tensor in rgb.state_dict().items() if name not in constants}
    torch.save(state, tmp_path / "vrt.pth")
    done = initialise(fused, tmp_path / "vrt.pth")
    assert constants and (done.computed, done.loaded) == (len(constants), len(state))
    assert f"{len(constants)} constants computed" in str(done)
    assert all(torch.equal(fused.state_dict()[name], x) for name, x in rgb.state_dict().items())


def test_says_what_was_loaded_and_that_nothing_changed(tmp_path: Path) -> None:
    rgb, fused = network(1, "none"), network(2)
    torch.save({"params": rgb.state_dict()}, tmp_path / "vrt.pth")
    done = initialise(fused, tmp_path / "vrt.pth")
    assert not done.took_branch
    first, second = str(replace(done, difference=check_import(fused, done.source))).splitlines()
    millions = sum(p.numel() for p in rgb.parameters()) / 1e6
    assert f"vrt.pth: {len(rgb.state_dict())} tensors with {millions:.2f} M parameters loaded" in first
    assert second == "import check: max|Δ| = 0"


@pytest.mark.parametrize("fusion", ["cross_attention", "none"])
def test_the_import_check_leaves_the_network_as_it_is(fusion: str, tmp_path: Path) -> None:
    some = network(1, fusion).train()
    before, random = {k: v.clone() for k, v in some.state_dict().items()}, torch.get_rng_state()
    assert check_import(some, tmp_path) == 0
    assert some.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(x, before[name]) for name, x in some.state_dict().items())


def test_a_branch_that_changes_the_output_is_refused(tmp_path: Path) -> None:
    fused = network(1)
    with torch.no_grad():
        fused.conv_last.weight.normal_()
        fused.fusions[0].mlp[-1].bias.normal_()
    with pytest.raises(CheckpointError, match=r"x\.pth: import check: max\|Δ\| = \d") as caught:
        check_import(fused, tmp_path / "x.pth")
    assert "report this" in caught.value.fix


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    fused = network(1)
    with torch.no_grad():
        fused.conv_last.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"import check: max\|Δ\| = nan") as caught:
        check_import(fused, tmp_path / "x.pth")
    assert "not finite" in caught.value.fix


@pytest.fixture(scope="module")
def official(golden_folder: Path) -> dict[str, Tensor]:
    """Random numbers under the names and shapes of the published deblurring networks, and their constants."""
    listing = json.loads((golden_folder / "vrt" / "official_keys_deblur.json").read_text())["keys"]
    constants = load_file(golden_folder / "vrt" / "official_buffers_deblur.safetensors")
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, (shape, dtype, kind) in listing.items():
        if kind == "param":
            state[name] = torch.randn(shape, generator=generator) * 0.02
        else:
            short = name.rpartition(".")[2]
            match = [
                x for key, x in constants.items() if key.startswith((short, name)) and list(x.shape) == shape
            ]
            assert len(match) == 1, name
            state[name] = match[0].to(getattr(torch, dtype))
    return state


@pytest.mark.parametrize("entry", ["params", None])
@pytest.mark.parametrize("constants", [True, False], ids=["with constants", "without"])
def test_a_file_of_the_published_size_loads_strictly(
    entry: str | None, constants: bool, official: dict[str, Tensor], tmp_path: Path
) -> None:
    rgb = build_network(NetworkConfig(fusion="none"), num_bins=0)
    learned = {name for name, _ in rgb.named_parameters()}
    state = {name: x for name, x in official.items() if constants or name in learned}
    torch.save({entry: state} if entry else state, tmp_path / "006.pth")
    done = initialise(rgb, tmp_path / "006.pth")
    assert (done.loaded, done.computed) == (len(state), 1526 - len(state))
    assert done.parameters == 18_320_007
    got = rgb.state_dict()
    # The encoding is a sum of sines and cosines, which differ by a rounding between versions.
    assert all(torch.allclose(got[name], x, rtol=0, atol=1e-6) for name, x in official.items())


def test_a_file_of_the_published_size_is_the_same_network_once_fused(
    official: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"params": official}, tmp_path / "006.pth")
    fused = build_network(NetworkConfig(), num_bins=4)
    done = initialise(fused, tmp_path / "006.pth")
    assert done.loaded == 1526 and done.fresh > 0
    assert check_import(fused, done.source) == 0
    del official["norm.weight"]
    torch.save({"params": official}, tmp_path / "006.pth")
    with pytest.raises(CheckpointError, match=r"missing: norm\.weight"):
        initialise(fused, tmp_path / "006.pth")


def with_instants(seed: int) -> SpikeVRT:
    torch.manual_seed(seed)
    return build_network(NetworkConfig(**SMALL, instants=True), 4).eval()


def test_a_network_without_instants_teaches_one_with_and_then_restores_the_same_whatever_it_is_told(
    tmp_path: Path,
) -> None:
    source, told = network(1), with_instants(2)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    torch.save(source.state_dict(), tmp_path / "x.pth")
    done = initialise(told, tmp_path / "x.pth")
    assert done.fresh == 0 and done.took_branch
    blurry, voxels = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            told(blurry, voxels, torch.tensor([[0.1, 0.7]])), source(blurry, voxels), rtol=0, atol=1e-6
        )


def test_an_rgb_checkpoint_fills_a_network_that_is_told_instants(tmp_path: Path) -> None:
    rgb, told = network(1, "none"), with_instants(2)
    torch.save(rgb.state_dict(), tmp_path / "x.pth")
    assert not initialise(told, tmp_path / "x.pth").took_branch
    assert check_import(told, tmp_path / "x.pth") == 0


def test_weights_that_know_instants_go_to_a_network_of_the_same_kind_only(tmp_path: Path) -> None:
    source, same = with_instants(1), with_instants(2)
    torch.save(source.state_dict(), tmp_path / "x.pth")
    initialise(same, tmp_path / "x.pth")
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), source.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="shape: spike_encoder"):
        initialise(network(3), tmp_path / "x.pth")
