"""Published weights: the network is read off its tensors, restores, and everything that is not it is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.network import NetworkConfig, build_network
from model.published import is_published, load_published, network_of, published_info
from model.windows import relative_position_index
from pipeline.config import to_plain
from pipeline.errors import CheckpointError

SIZES: list[dict[str, Any]] = [
    {"depths": (1,) * 8, "window": (2, 4, 4), "indep_reconsts": (7,)},
    {"depths": (2,) * 7 + (1, 3), "window": (3, 2, 4), "indep_reconsts": (8,), "embed_dims": (8,) * 7 + (12,) * 2},
    {"depths": (4, 2, 2, 3, 2, 2, 5, 1), "window": (2, 4, 2), "indep_reconsts": (), "pa_frames": 4},
    {"depths": (1,) * 8, "window": (1, 2, 2), "indep_reconsts": (), "num_heads": (1, 2, 4, 2, 1, 1, 1, 4)},
    {"depths": (1,) * 8, "window": (4, 2, 3), "indep_reconsts": (), "flow": "none", "deformable_groups": 4},
]  # fmt: skip


def size(**changes: Any) -> NetworkConfig:
    plain: dict[str, Any] = {"fusion": "none", "deformable_groups": 2} | changes
    entries = len(plain["depths"])
    return NetworkConfig(**({"embed_dims": (8,) * entries, "num_heads": (2,) * entries} | plain))


def weights(**changes: Any) -> dict[str, Tensor]:
    """Of a small network that changes what it is given."""
    torch.manual_seed(0)
    network = build_network(size(**(SIZES[0] | changes)), 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return dict(network.state_dict())


@pytest.mark.parametrize("changes", SIZES)
def test_reads_the_size_of_a_network_off_its_tensors(changes: dict[str, Any]) -> None:
    config = size(**changes)
    with torch.device("meta"):
        state = build_network(config, 0).state_dict()
    for name, tensor in state.items():
        if name.endswith("relative_position_index"):
            state[name] = next(
                index
                for window in (config.window, (2, *config.window[1:]), (1, *config.window[1:]))
                if (index := relative_position_index(window)).shape == tensor.shape
            )
    assert network_of(state, Path("x.pth")) == config


def test_the_published_names_and_shapes_are_those_of_the_published_network(
    golden_folder: Path, official_config: NetworkConfig
) -> None:
    listing = json.loads((golden_folder / "vrt" / "official_keys_deblur.json").read_text())
    state = {name: torch.empty(shape, device="meta") for name, (shape, _, _) in listing["keys"].items()}
    for name in state:
        if name.endswith("relative_position_index"):
            window = {384: (6, 8, 8), 128: (2, 8, 8), 64: (1, 8, 8)}[len(state[name])]
            state[name] = relative_position_index(window)
    assert network_of(state, Path("x.pth")) == official_config


def test_the_golden_network_comes_back_whole(golden: Any, tmp_path: Path) -> None:
    torch.save({"params": golden.state}, tmp_path / "vrt.pth")
    network, info = load_published(tmp_path / "vrt.pth")
    assert network.config == golden.config and not network.training
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in golden.state.items())
    assert info.config["network"] == to_plain(golden.config)


@pytest.mark.parametrize("entry", ["params", "params_ema", None])
def test_loads_what_is_in_the_file_to_the_bit(entry: str | None, tmp_path: Path) -> None:
    state = weights()
    torch.save({entry: state} if entry else state, tmp_path / "x.pth")
    network, info = load_published(tmp_path / "x.pth")
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    content = (tmp_path / "x.pth").read_bytes()
    assert info.header["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (info.step, info.store, info.normalization, info.averaged) == (None, {}, None, False)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("006_VRT_videodeblurring_GoPro.pth", 18), ("005_VRT_videodeblurring_DVD.pth", 12), ("mine.pth", 2)],
)
def test_clips_are_as_long_as_in_the_published_test_else_as_the_window(
    name: str, frames: int, tmp_path: Path
) -> None:
    torch.save(weights(), tmp_path / name)
    assert published_info(tmp_path / name).config["clip"] == {"num_frames": frames}


def test_goes_by_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.pth").mkdir()
    assert is_published(Path("006.pth"))
    assert not is_published(Path("last.safetensors")) and not is_published(tmp_path / "run.pth")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("norm.weight"), "missing: norm.weight"),
        (lambda state: state.update({"upsample.weight": torch.ones(1)}), "unknown: upsample.weight"),
        (lambda state: state.update({"norm.weight": torch.ones(3)}), r"norm.weight is \(3,\), wanted \(8,\)"),
        (lambda state: state.update({"conv_first.weight": torch.ones(8, 28, 1, 3, 3)}), "shape: conv_first.weight"),
        (lambda state: state.pop("stage1.pa_deform.conv_offset.0.weight"), "lacks stage1.pa_deform.conv_offset.0"),
        (
            lambda state: state.pop("stage3.residual_group2.blocks.0.attn.relative_position_index"),
            "lacks stage3.residual_group2.blocks.0.attn.relative_position_index",
        ),
        (
            lambda state: state["stage3.residual_group2.blocks.0.attn.relative_position_index"].zero_(),
            "stage3.residual_group2.blocks.0.attn.relative_position_index is of no window of 32 tokens",
        ),
        (lambda state: state.update({"stage1.linear2.weight": torch.ones(())}), "not the weights of VRT's network"),
        (lambda state: state.update({"spike_encoder.x": torch.ones(1)}), "has a spike branch"),
        (dict.clear, "not the weights of VRT's network for deblurring: lacks stage1"),
    ],
)  # fmt: skip
def test_refuses_what_is_not_that_network(change: Any, told: str, tmp_path: Path) -> None:
    state = weights()
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=told) as caught:
        load_published(tmp_path / "x.pth")
    assert "x.pth" in caught.value.problem and caught.value.fix


def test_refuses_a_file_that_is_missing_or_no_weights(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"nothing of the kind")
    for name, told in (("x.pth", "refused|cannot be read"), ("y.pth", "no such file")):
        with pytest.raises(CheckpointError, match=told):
            published_info(tmp_path / name)
