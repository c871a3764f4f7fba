"""LPIPS with random weights, against a slow version from the definition, and weights from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.lpips import CHANNELS, Lpips, load_lpips
from pipeline.errors import CheckpointError

ALEX = (
    (0, 4, 2),
    "relu",
    "pool",
    (3, 1, 2),
    "relu",
    "pool",
    (6, 1, 1),
    "relu",
    (8, 1, 1),
    "relu",
    (10, 1, 1),
    "relu",
)
"""Number, stride and padding of each convolution."""


def random_lpips(backbone: str, seed: int = 0) -> Lpips:
    torch.manual_seed(seed)
    network = Lpips(backbone)
    for head in network.heads:
        head.copy_(torch.rand(head.shape))
    return network


def official(network: Lpips) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Its weights as torchvision and the authors name them, with what else their files hold."""
    state = network.state_dict()
    trunk = {name: value for name, value in state.items() if name.startswith("features.")}
    heads = {
        f"lin{name.removeprefix('heads.')}.model.1.weight": value
        for name, value in state.items()
        if name.startswith("heads.")
    }
    return trunk | {"classifier.1.weight": torch.zeros(3)}, heads


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """(C, H, W) to (D, h, w), one output pixel at a time."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    side = weight.shape[-1]
    rows, columns = ((length - side) // stride + 1 for length in x.shape[1:])
    made = np.empty((len(weight), rows, columns))
    for row in range(rows):
        for column in range(columns):
            patch = x[:, row * stride : row * stride + side, column * stride : column * stride + side]
            made[:, row, column] = np.tensordot(weight, patch, axes=3) + bias
    return made


def pooled(x: np.ndarray) -> np.ndarray:
    rows, columns = ((length - 3) // 2 + 1 for length in x.shape[1:])
    corners = ((row, column) for row in range(3) for column in range(3))
    return np.max([x[:, r : r + 2 * rows - 1 : 2, c : c + 2 * columns - 1 : 2] for r, c in corners], axis=0)


def slow_alex(trunk: dict[str, Tensor], heads: dict[str, Tensor], first: Tensor, second: Tensor) -> float:
    weights = {name: value.double().numpy() for name, value in (trunk | heads).items()}

    def activations(picture: Tensor) -> list[np.ndarray]:
        x = picture.double().numpy() * 2 - 1
        x = (x - np.reshape([-0.030, -0.088, -0.188], (3, 1, 1))) / np.reshape(
            [0.458, 0.448, 0.450], (3, 1, 1)
        )
        found = []
        for layer in ALEX:
            if layer == "pool":
                x = pooled(x)
            elif layer == "relu":
                x = np.maximum(x, 0)
                found.append(x / (np.sqrt((x**2).sum(axis=0)) + 1e-10))
            else:
                number, stride, padding = layer
                x = convolved(
                    x,
                    weights[f"features.{number}.weight"],
                    weights[f"features.{number}.bias"],
                    stride,
                    padding,
                )
        return found

    total = 0.0
    for number, (ours, theirs) in enumerate(zip(activations(first), activations(second), strict=True)):
        head = weights[f"lin{number}.model.1.weight"].reshape(-1, 1, 1)
        total += float((head * (ours - theirs) ** 2).sum(axis=0).mean())
    return total


def test_alexnet_equals_a_slow_version_of_the_definition():
    network = random_lpips("alex")
    first, second = torch.rand(2, 3, 67, 83, generator=torch.Generator().manual_seed(1))
    wanted = slow_alex(*official(network), first, second)
    assert wanted > 1e-3
    assert network(first[None], second[None]).item() == pytest.approx(wanted, rel=1e-5)


def test_vgg16_compares_the_five_activations_of_its_blocks():
    network = random_lpips("vgg")
    first, second = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )  # the same as ImageNet's normalization of [0, 1]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    total, x, y = 0.0, (first - mean) / scale, (second - mean) / scale
    for number, (start, stop) in enumerate(((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))):
        x, y = (network.features[start:stop](value) for value in (x, y))
        assert x.shape[1] == CHANNELS["vgg"][number]
        difference = torch.nn.functional.normalize(x, dim=1) - torch.nn.functional.normalize(y, dim=1)
        total += (network.heads[number] * difference**2).sum(dim=1).mean().item()
    assert network(first, second).item() == pytest.approx(total, rel=1e-4)


def test_pictures_of_a_batch_do_not_see_each_other_and_the_same_is_zero():
    network = random_lpips("alex")
    first, second = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    both = network(first, second)
    assert both.shape == (2,)
    torch.testing.assert_close(both[1:], network(first[1:], second[1:]))
    assert network(first, first).tolist() == [0, 0]


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_official_files_in_any_order_among_others(tmp_path: Path, backbone: str):
    pictures = torch.rand(2, 1, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    files = []
    for name in ("alex", "vgg"):
        for part, state in zip(("heads", "trunk"), reversed(official(random_lpips(name))), strict=True):
            files.append(tmp_path / f"{name}_{part}.pth")
            torch.save(state, files[-1])
    loaded = load_lpips(backbone, files)
    assert torch.equal(loaded(*pictures), random_lpips(backbone)(*pictures))
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())


def test_one_file_of_the_whole_module(tmp_path: Path):
    network = random_lpips("alex")
    trunk, heads = official(network)
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    state = {
        f"net.slice{slices[int(name.split('.')[1])]}.{name.removeprefix('features.')}": value
        for name, value in trunk.items()
        if name.startswith("features.")
    }
    save_file(state | heads | {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}, tmp_path / "all.safetensors")
    pictures = torch.rand(2, 1, 3, 48, 48)
    assert torch.equal(load_lpips("alex", [tmp_path / "all.safetensors"])(*pictures), network(*pictures))


def test_refuses_files_without_what_it_needs(tmp_path: Path):
    trunk, heads = official(random_lpips("alex"))
    torch.save(trunk, tmp_path / "trunk.pth")
    torch.save(heads, tmp_path / "heads.pth")
    for given, what in ((["trunk.pth"], "channels"), (["heads.pth"], "network")):
        with pytest.raises(
            CheckpointError, match=rf"lpips-alex: .*{given[0]}: no weights of its {what}"
        ) as caught:
            load_lpips("alex", [tmp_path / name for name in given])
        assert "lpips_weights=[NETWORK, CHANNELS]" in caught.value.fix
    with pytest.raises(CheckpointError, match=r"lpips-vgg: .*no weights of its network"):
        load_lpips("vgg", [tmp_path / "trunk.pth", tmp_path / "heads.pth"])
    with pytest.raises(CheckpointError, match="no such file"):
        load_lpips("alex", [tmp_path / "none.pth"])
