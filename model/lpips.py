"""LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018), version 0.1.

Activations of a network trained on ImageNet are scaled to length 1 at every pixel, and their squared differences are
weighted by channel, averaged over pixels and added up over layers. The weights come from files: those of the network
as torchvision publishes them, and those of the channels as the authors do; or one file that holds both.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from model.vgg import LAYERS, VggFeatures
from model.weights import read_weights
from pipeline.errors import CheckpointError

Backbone = Literal["alex", "vgg"]
CHANNELS: Mapping[Backbone, tuple[int, ...]] = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
}
"""Of the five activations compared."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1]."""
_TINY = 1e-10
_OUR_NAMES = (
    (re.compile(r"(?:net\.slice\d\.|features\.)(\d+\.(?:weight|bias))"), r"features.\1"),
    (re.compile(r"lin(?:s\.)?(\d)\.model\.1\.weight"), r"heads.\1"),
)


class Lpips(nn.Module):
    """The distance of two pictures; always in eval mode and without gradients for its weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.features, self.compared = _alexnet() if backbone == "alex" else _vgg16()
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in CHANNELS[backbone])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """The distances (N,), 0 for the same, of pictures (N, 3, H, W) in [0, 1]."""
        layers = zip(self._activations(restored), self._activations(sharp), self.heads, strict=True)
        return torch.stack(
            [((ours - theirs) ** 2 * head).sum(dim=1).mean(dim=(-2, -1)) for ours, theirs, head in layers]
        ).sum(dim=0)

    def _activations(self, pictures: Tensor) -> list[Tensor]:
        x = (2 * pictures - 1 - self.shift) / self.scale
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.compared:
                found.append(x / ((x**2).sum(dim=1, keepdim=True).sqrt() + _TINY))
        return found


def load_lpips(backbone: Backbone, files: Sequence[Path]) -> Lpips:
    """LPIPS with its weights, which may be spread over files in any order.

    Args:
        files: `.pth` or `.safetensors`; weights for the other backbone, and layers not needed, are left out.

    Raises:
        CheckpointError: unreadable, or weights are missing.
    """
    names = {"alex": "alexnet-owt-7be5be79.pth and alex.pth", "vgg": "vgg16-397923af.pth and vgg.pth"}[
        backbone
    ]
    fix = f"give both files: lpips_weights=[NETWORK, CHANNELS], as {names} of torchvision and of LPIPS 0.1"
    network = Lpips(backbone)
    wanted = network.state_dict()
    found: dict[str, Tensor] = {}
    states = [_renamed(read_weights(path, fix)) for path in files]
    for kind in ("features.", "heads."):
        shapes = {name: value.shape for name, value in wanted.items() if name.startswith(kind)}
        fitting = [state for state in states if _holds(state, shapes)]
        if not fitting:
            listed = ", ".join(map(str, files)) or "no file"
            what = "weights of its network" if kind == "features." else "weights of its channels"
            raise CheckpointError(f"lpips-{backbone}: {listed}: no {what} there", fix)
        found |= {name: fitting[0][name] for name in shapes}
    network.load_state_dict(found)
    return network


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names they have in `Lpips`."""
    renamed = {}
    for name, value in state.items():
        for pattern, ours in _OUR_NAMES:
            if pattern.fullmatch(name):
                renamed[pattern.sub(ours, name)] = value
    return renamed


def _holds(state: Mapping[str, Tensor], shapes: Mapping[str, Iterable[int]]) -> bool:
    return all(name in state and state[name].shape == shape for name, shape in shapes.items())


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    """The convolutions of torchvision's AlexNet (Krizhevsky, 2014), and which activations are compared."""
    layers = (
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )
    return nn.Sequential(*layers), (1, 4, 7, 9, 11)


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    vgg = VggFeatures(tuple(LAYERS))
    return vgg.features, vgg.indices
