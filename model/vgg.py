"""The convolutional part of VGG16, frozen, as a measure of how alike two pictures look."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.weights import read_weights
from pipeline.errors import CheckpointError

LAYERS: Mapping[str, int] = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
"""Index of each named activation in the usual VGG16 `features` sequence."""

HUB_NAME = "vgg16-397923af.pth"
"""The ImageNet weights as torchvision caches them."""

_WIDTHS = (
    64,
    64,
    0,
    128,
    128,
    0,
    256,
    256,
    256,
    0,
    512,
    512,
    512,
    0,
    512,
    512,
    512,
)  # 0 is a 2x2 max pooling
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """VGG16 (Simonyan and Zisserman, 2015, configuration D) up to the deepest layer asked for.

    Always in eval mode and without gradients for its weights; gradients reach the pictures.

    Args:
        layers: names from `LAYERS`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.indices = tuple(LAYERS[name] for name in layers)
        self.features = nn.Sequential(*_layers()[: max(self.indices) + 1])
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "VggFeatures":
        """Stay in eval mode whatever the parent module does."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The chosen activations of (N, 3, H, W) RGB pictures in [0, 1], in the order asked for."""
        x = (pictures - self.mean) / self.std
        found = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.indices:
                found[index] = x
        return [found[index] for index in self.indices]


class VggPerceptual(nn.Module):
    """Mean absolute difference of VGG16 activations (Johnson et al., "Perceptual Losses", 2016, with L1).

    Args:
        layers: names from `LAYERS`; their distances are added.
        weights: a file with the VGG16 weights; without one the torch hub cache is searched.

    Raises:
        CheckpointError: no usable weights.
    """

    def __init__(self, layers: Sequence[str], weights: Path | None = None) -> None:
        super().__init__()
        self.vgg = VggFeatures(layers)
        load_vgg(self.vgg, weights)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """The distance of two (..., 3, H, W) batches in [0, 1], a float32 scalar; frames are folded into the batch."""
        with torch.no_grad():
            wanted = self.vgg(sharp.flatten(0, -4))
        pairs = zip(self.vgg(restored.flatten(0, -4)), wanted, strict=True)
        return torch.stack([F.l1_loss(ours.float(), theirs.float()) for ours, theirs in pairs]).sum()


def load_vgg(network: VggFeatures, weights: Path | None) -> None:
    """Fill `network` from a `.pth` or `.safetensors` file, or from the torch hub cache.

    Names may carry the `features.` prefix or not; deeper layers and the classifier are left out.

    Raises:
        CheckpointError: no such file, unreadable, or without the layers needed.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / HUB_NAME
    fix = "give the file as loss.vgg_weights=FILE, or train without the perceptual loss: loss.perceptual_weight=0"
    if not path.is_file():
        looked = f"{path}" if weights else f"{path} (the torch hub cache; loss.vgg_weights is not set)"
        raise CheckpointError(f"no VGG16 weights for the perceptual loss at {looked}", fix)
    state = {name.removeprefix("features."): value for name, value in read_weights(path, fix).items()}
    for name, parameter in network.features.state_dict().items():
        if name not in state or state[name].shape != parameter.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            problem = (
                f"{path}: not VGG16 weights: features.{name} is {found}, wanted {tuple(parameter.shape)}"
            )
            raise CheckpointError(problem, fix)
    network.features.load_state_dict({name: state[name] for name in network.features.state_dict()})


def _layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width in _WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
    return layers
