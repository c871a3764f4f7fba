"""What cutting a smooth sequence into tiles and clips changes in its restoration.

python benchmarks/seams.py [--depth N] [--gains G ...] [--picture FILE.png]

The network is `SpikeVRT` with the windows, scales and depths of the reference model, 16 channels wide, and random
weights: those of a linear map have a standard deviation of `gain` / sqrt(inputs). With a gain of 1 every layer passes
on as much as it gets, with 0.1 it does about what a network does before training. The last layer is scaled so that the
restored frames differ from the blurry ones by 0.05 (standard deviation). Differences are given in 1/255, and the cost
in pixels that go through the network over pixels of the frame, for a frame of 720x1280.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from model.network import NetworkConfig, SpikeVRT, build_network
from model.tiling import Tiling, cut, restore_tiled
from pipeline.images import write_png

NUM_BINS, FRAMES, SIZE = 8, 2, (64, 600)
GAINS = (0.1, 0.5, 0.7, 1.0)
TILES = ((256, 0, 8), (256, 32, 8), (256, 32, 64), (256, 64, 64), (256, 128, 64), (384, 192, 64))
"""Tile, overlap, and what the starts are multiples of."""
CLIPS = ((4, 0), (4, 2), (8, 4))


def smooth(num_frames: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """(T, C, H, W) waves of 96 pixels and more, which move by up to two pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    time, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (num_frames, height, width)), indexing="ij")
    images = []
    for _ in range(channels):
        image = torch.full_like(x, 0.5)
        for _ in range(4):
            period, speed, phase = torch.rand(3, 2, generator=generator)
            angle_x = 2 * math.pi * ((x - (4 * speed[0] - 2) * time) / (96 + 160 * period[0]) + phase[0])
            angle_y = 2 * math.pi * ((y - (4 * speed[1] - 2) * time) / (96 + 160 * period[1]) + phase[1])
            image += 0.1 * angle_x.sin() * angle_y.cos()
        images.append(image)
    return torch.stack(images, dim=1)


def random_network(gain: float, depth: int) -> SpikeVRT:
    """The network above. Its flow is about half a pixel, as neighbours are sampled at whole pixels: next to an
    integer the least change of a flow would move a sample by a pixel, and hide what the tiles do.
    """
    torch.manual_seed(0)
    config = NetworkConfig(
        embed_dims=(16,) * 11,
        depths=(depth,) * 7 + (max(depth // 2, 1),) * 4,
        num_heads=(2,) * 11,
        deformable_groups=4,
        spike_channels=(16,) * 4,
    )
    network = build_network(config, NUM_BINS).eval()
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
        if hasattr(module, "conv_offset"):
            nn.init.normal_(module.conv_offset[-1].weight, std=0.02)
    for level in network.spynet.basic_module:
        last = level.basic_module[-1]
        nn.init.zeros_(last.bias)
        last.weight.data.mul_(0.05)
    network.spynet.basic_module[2].basic_module[-1].bias.data.copy_(torch.tensor([0.06, -0.06]))
    nn.init.normal_(network.conv_last.weight, std=0.02)
    blurry, voxels = (smooth(FRAMES, n, 96, 96, seed=n)[None] for n in (3, NUM_BINS))
    with torch.inference_mode():
        network.conv_last.weight.data.mul_(0.05 / (network(blurry, voxels) - blurry).std())
    return network


def streamed(network: SpikeVRT, blurry: Tensor, voxels: Tensor, cuts: Tiling) -> Tensor:
    with torch.inference_mode():
        return torch.stack(list(restore_tiled(network, blurry, voxels, cuts)))


def cost(cuts: Tiling) -> float:
    rows, columns = (
        sum(b - a for a, b in cut(side, cuts.tile, cuts.overlap, cuts.unit(1))) for side in (720, 1280)
    )
    return rows * columns / (720 * 1280)


def differences(depth: int, gains: Sequence[float]) -> tuple[dict[str, list[str]], list[Tensor]]:
    """Cells of the table by row, and the largest change of each pixel for every cut in space, of the last gain."""
    blurry, voxels = (smooth(FRAMES, n, *SIZE, seed=n + 1) for n in (3, NUM_BINS))
    long = [smooth(12, n, 64, 64, seed=n + 1) for n in (3, NUM_BINS)]
    rows: dict[str, list[str]] = {}
    images = []
    for gain in gains:
        network = random_network(gain, depth)
        whole = streamed(network, blurry, voxels, Tiling(num_frames=FRAMES, overlap_frames=0))
        images = []
        for tile, overlap, grid in TILES:
            cuts = Tiling(tile=tile, overlap=overlap, num_frames=FRAMES, overlap_frames=0, grid=grid)
            change = 255 * (streamed(network, blurry, voxels, cuts) - whole).abs()
            name = f"tiles of {tile}, overlap {overlap}, starts at multiples of {grid} | {cost(cuts):.2f}"
            rows.setdefault(name, []).append(f"{change.max():.3f}")
            images.append(change.amax((0, 1)))
        whole = streamed(network, *long, Tiling(num_frames=12, overlap_frames=0))
        for frames, overlap in CLIPS:
            change = 255 * (
                streamed(network, *long, Tiling(num_frames=frames, overlap_frames=overlap)) - whole
            )
            name = f"clips of {frames} frames, overlap {overlap} | {frames / (frames - overlap):.2f}"
            rows.setdefault(name, []).append(f"{change.abs().max():.3f}")
    return rows, images


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, default=8, help="blocks of a stage")
    parser.add_argument("--gains", type=float, nargs="+", default=GAINS)
    parser.add_argument(
        "--picture", type=Path, help="difference images of the last gain, one below the other"
    )
    arguments = parser.parse_args()
    rows, images = differences(arguments.depth, arguments.gains)
    heads = " | ".join(f"gain {gain}" for gain in arguments.gains)
    sys.stdout.write(f"| cut | cost | {heads} |\n| --- {'| ---: ' * (1 + len(arguments.gains))}|\n")
    for name, cells in rows.items():
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
    if arguments.picture:
        scaled = torch.cat(images).mul(64).clamp(0, 255).to(torch.uint8)
        write_png(arguments.picture, scaled.numpy())


if __name__ == "__main__":
    main()
