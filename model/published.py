"""Published VRT weights as they are: a file of tensors to a network that restores, without training or import.

Such a file does not say what network it is of, but its tensors do: widths, depths and heads are in their shapes, the
attention window is in the index tables beside them. What a network of these sizes lacks, or has no place for, refuses
the file.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import CheckpointInfo
from model.network import NetworkConfig, SpikeVRT, build_network
from model.pretrained import SPIKE_MODULES, initialise
from model.weights import read_weights
from model.windows import Size3, relative_position_index
from pipeline.config import build, to_plain
from pipeline.errors import CheckpointError

SUFFIXES = (".pth", ".pt")
TEST_FRAMES: Mapping[str, int] = {
    "005_VRT_videodeblurring_DVD": 12,
    "006_VRT_videodeblurring_GoPro": 18,
    "007_VRT_videodeblurring_REDS": 12,
}
"""Frames of the clips that published networks were tested on, by the name of their file: the three are of one shape."""
_TABLE = "relative_position_bias_table"
_FIX = (
    "a checkpoint of spk is a .safetensors; others restore as they are if they are of VRT's network for deblurring, "
    "as the published 005, 006 and 007 are"
)


def is_published(path: Path) -> bool:
    """Whether this is the name of weights that others published, and not of a checkpoint or a run folder."""
    return path.suffix in SUFFIXES and not path.is_dir()


def published_info(path: Path) -> CheckpointInfo:
    """What the file of published weights tells, as the header of a checkpoint would: no step, and no store.

    Raises:
        CheckpointError: unreadable, or not the weights of an RGB network.
    """
    config = network_of(read_weights(path, _FIX), path)
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    num_frames = TEST_FRAMES.get(path.stem, config.window[0])
    return CheckpointInfo(
        path=path,
        step=None,
        config={"network": to_plain(config), "clip": {"num_frames": num_frames}},
        num_bins=0,
        scale=1,
        voxels=None,
        normalization=None,
        store={},
        best=None,
        averaged=False,
        versions={},
        header={"digest": digest},
    )


def load_published(path: Path) -> tuple[SpikeVRT, CheckpointInfo]:
    """Build the network that published weights are of, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: unreadable, not the weights of an RGB network, or not all of them.
    """
    info = published_info(path)
    config = build(NetworkConfig, info.config["network"], f"{path}: network")
    network = build_network(config, info.num_bins)
    try:
        initialise(network, path)
    except CheckpointError as error:
        raise CheckpointError(error.problem, _FIX) from error
    return network.eval(), info


def network_of(weights: Mapping[str, Tensor], path: Path) -> NetworkConfig:
    """Read the size of the RGB network off its tensors.

    Args:
        path: of the file, for the message.

    Raises:
        CheckpointError: they are not of such a network.
    """
    foreign = next((name for name in weights if name.startswith(SPIKE_MODULES)), None)
    if foreign is not None:
        raise CheckpointError(
            f"{path}: has a spike branch ({foreign}), and nothing says how its voxels were normalized",
            f"train from it: spk train CONFIG init={path}",
        )
    try:
        return _Sizes(weights).config()
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        why = f"lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{path}: not the weights of VRT's network for deblurring: {why}", _FIX
        ) from error


class _Sizes:
    """Looks up what a network was made with in the tensors it has.

    Every method raises KeyError for a tensor that is not there, and ValueError for one of an impossible shape.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        numbered = (f"stage8.{number}" for number in itertools.count(1))
        groups = itertools.takewhile(lambda group: f"{group}.linear.weight" in weights, numbered)
        parts = [(f"stage{number}", "2") for number in range(1, 8)] + [(group, "") for group in groups]
        self.parts = [part for part, _ in parts]
        self.linears = [f"{part}.linear{second}.weight" for part, second in parts]
        self.attentions = [f"{part}.residual_group{second}.blocks.0.attn" for part, second in parts]

    def config(self) -> NetworkConfig:
        channels = self._shape(self.linears[0])[0]
        guide = "stage1.pa_deform.conv_offset.0.weight"
        neighbours, rest = divmod(self._shape(guide)[1] - channels, channels + 2)
        if rest:
            raise ValueError(f"{guide} aligns no whole number of frames of {channels} channels")
        windows = [self._window(attention) for attention in self.attentions]
        return NetworkConfig(
            fusion="none",
            embed_dims=tuple(self._shape(linear)[0] for linear in self.linears),
            depths=tuple(self._depth(part) for part in self.parts),
            num_heads=tuple(self._shape(f"{attention}.{_TABLE}")[1] for attention in self.attentions),
            window=windows[0],
            indep_reconsts=tuple(entry for entry, window in enumerate(windows) if window != windows[0]),
            pa_frames=2 * neighbours,
            deformable_groups=self._shape("stage1.pa_deform.conv_offset.6.weight")[0] // 27,
            flow="spynet" if any(name.startswith("spynet.") for name in self.weights) else "none",
        )

    def _depth(self, part: str) -> int:
        """Attention blocks, each of which has one table."""
        return sum(name.startswith(f"{part}.") and name.endswith(f".{_TABLE}") for name in self.weights)

    def _window(self, attention: str) -> Size3:
        """The window whose pairs of tokens have the relative positions that the index table lists."""
        name = f"{attention}.relative_position_index"
        index, positions = self.weights[name], self._shape(f"{attention}.{_TABLE}")[0]
        tokens = self._shape(name)[0]
        sides = [side for side in range(1, tokens + 1) if tokens % side == 0]
        for depth, rows in itertools.product(sides, repeat=2):
            window = depth, rows, tokens // (depth * rows)
            fits = math.prod(window) == tokens and math.prod(2 * side - 1 for side in window) == positions
            if fits and torch.equal(relative_position_index(window), index.long()):
                return window
        raise ValueError(f"{name} is of no window of {tokens} tokens")

    def _shape(self, name: str) -> torch.Size:
        return self.weights[name].shape
