from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.vgg import HUB_NAME, VggFeatures, VggPerceptual
from pipeline.errors import CheckpointError


def weights(layers: tuple[str, ...] = ("relu2_2",)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: value.shape for name, value in VggFeatures(layers).features.state_dict().items()}
    return {
        f"features.{name}": torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()
    }


def test_layers_have_the_indices_and_widths_of_vgg16() -> None:
    network = VggFeatures(("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"))
    assert len(network.features) == 30
    found = network(torch.rand(1, 3, 32, 32))
    assert [tuple(f.shape[1:]) for f in found] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip
    assert all((f >= 0).all() for f in found)


def test_distance_is_the_mean_absolute_difference_of_the_activations(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "vgg.safetensors")
    perceptual = VggPerceptual(("relu1_2", "relu2_2"), tmp_path / "vgg.safetensors")
    first, second = torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 3, 16, 16)
    pairs = zip(
        perceptual.vgg(first.reshape(6, 3, 16, 16)), perceptual.vgg(second.reshape(6, 3, 16, 16)), strict=True
    )
    wanted = sum((a - b).abs().mean() for a, b in pairs)
    torch.testing.assert_close(perceptual(first, second), wanted)
    assert perceptual(first, first) == 0


def test_pictures_get_gradients_and_the_frozen_weights_none(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "vgg.pth")
    perceptual = VggPerceptual(("relu2_2",), tmp_path / "vgg.pth").train()
    restored = torch.rand(1, 2, 3, 16, 16, requires_grad=True)
    perceptual(restored, torch.rand(1, 2, 3, 16, 16)).backward()
    assert restored.grad is not None and restored.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    assert not perceptual.vgg.training


def test_finds_the_torch_hub_cache_and_leaves_deeper_layers_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    everything = weights(("relu3_3",)) | {"classifier.0.weight": torch.zeros(2)}
    torch.save(everything, tmp_path / "hub" / "checkpoints" / HUB_NAME)
    perceptual = VggPerceptual(("relu1_2",))
    assert torch.equal(perceptual.vgg.features[0].weight, everything["features.0.weight"])


def test_says_where_it_looked_and_how_to_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match="torch hub cache") as caught:
        VggPerceptual(("relu3_3",))
    assert str(tmp_path / "hub" / "checkpoints" / HUB_NAME) in str(caught.value)
    assert "loss.perceptual_weight=0" in caught.value.fix


def test_refuses_weights_of_another_network(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"features.0.weight is \(4, 3, 3, 3\), wanted \(64, 3, 3, 3\)"):
        VggPerceptual(("relu1_2",), tmp_path / "other.safetensors")
