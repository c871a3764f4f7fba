"""The deblurring network: VRT with spike features fused into its encoder."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.conv3d import Conv3d
from model.flow import (
    FLOW_SCALES,
    Flows,
    SpyNet,
    align_frames,
    compose_flows,
    full_precision,
    neighbour_flows,
)
from model.fusion import RGBOnly, TemporalCrossAttnFuse
from model.instants import INSTANT_CHANNELS, with_instants
from model.layers import ResidualAttentionGroup, init_linear
from model.recompute import Run, keep, recompute
from model.spikes import SpikeEncoder
from model.temporal_attention import Chunking, ChunkShape
from model.vrt import Resample, Stage

_STAGES = 7
_KINDS: tuple[Resample, ...] = ("none", "down", "down", "down", "up", "up", "up")
_SCALES = (0, 1, 2, 3, 2, 1, 0)  # each stage works at 1 / 2**scale of the frame
_COARSEST = 8
_PIECE = re.compile(r"stage\d\..*blocks\.\d+|stage\d\.pa_(deform|fuse)")
_FULL_SIZE_PIECE = re.compile(r"stage[178]\..*")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The size and the parts of the network; the defaults are the reference model.

    Entries 0..6 of `embed_dims`, `depths` and `num_heads` are stages 1..7, the rest are the groups of stage 8.

    Attributes:
        fusion: how spikes enter after stages 1..4; "none" is the plain RGB network.
        instants: restores the instant of each exposure that it is told, and learns to; without, whichever it was shown.
        embed_dims: channels.
        depths: attention blocks.
        num_heads: attention heads.
        window: attention window in frames, rows, columns.
        indep_reconsts: entries of stage 8 that see single frames (window (1, h, w)).
        mul_attn_ratio: share of a stage's blocks with mutual attention.
        mlp_ratio: hidden width of the MLPs over their channels.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        pa_frames: neighbours aligned to each frame: 2, 4 or 6, half of them on either side.
        deformable_groups: offset groups of the alignment.
        flow: "none" takes the scene as still (no SpyNet); the alignment then learns its offsets alone.
        spike_channels: width of the spike features on each scale.
        spike_strides: (time, rows, columns) from each spike scale to the next.
        spike_heads: heads of the spikes' temporal attention.
        fusion_heads: heads of the fusion's attention.
        chunking: "adaptive" or "fixed" pieces of the per-pixel attention over time.
        chunk_shape: "square", "wide" or "tall".
        chunk_size: side in pixels of a fixed square chunk.
        max_batch_tokens: largest batch * pixels of an adaptive chunk.
        checkpoint_stages: stages 1..8 whose activations are recomputed in backward to save memory.
        memory_gb: most activations that training keeps for backward, in 1e9 bytes; further stages are recomputed until
            they fit, the cheapest that do. None sets no limit.

    Raises:
        ValueError: naming the field and its value.
    """

    fusion: Literal["cross_attention", "none"] = "cross_attention"
    instants: bool = False
    embed_dims: tuple[int, ...] = (96,) * 7 + (120,) * 4
    depths: tuple[int, ...] = (8,) * 7 + (4,) * 4
    num_heads: tuple[int, ...] = (6,) * 11
    window: tuple[int, int, int] = (6, 8, 8)
    indep_reconsts: tuple[int, ...] = (9, 10)
    mul_attn_ratio: float = 0.75
    mlp_ratio: float = 2.0
    drop_path_rate: float = 0.2
    pa_frames: int = 2
    deformable_groups: int = 16
    flow: Literal["spynet", "none"] = "spynet"
    spike_channels: tuple[int, int, int, int] = (96, 96, 96, 96)
    spike_strides: tuple[int, int, int] = (1, 2, 2)
    spike_heads: int = 4
    fusion_heads: int = 4
    chunking: Literal["adaptive", "fixed"] = "adaptive"
    chunk_shape: ChunkShape = "square"
    chunk_size: int = 64
    max_batch_tokens: int = 49152
    checkpoint_stages: tuple[int, ...] = ()
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_widths()
        self._check_parts()

    def _check_choices(self) -> None:
        for name, choices in (
            ("fusion", ("cross_attention", "none")),
            ("flow", ("spynet", "none")),
            ("chunking", ("adaptive", "fixed")),
            ("chunk_shape", ("square", "wide", "tall")),
            ("pa_frames", (2, 4, 6)),
        ):
            self._require(name, getattr(self, name) in choices, f"is not one of {choices}")
        self._require("mul_attn_ratio", 0 <= self.mul_attn_ratio <= 1, "is not in [0, 1]")
        self._require("mlp_ratio", self.mlp_ratio > 0, "is not positive")
        self._require("drop_path_rate", 0 <= self.drop_path_rate < 1, "is not in [0, 1)")
        for name in ("deformable_groups", "spike_heads", "fusion_heads", "chunk_size", "max_batch_tokens"):
            self._require(name, getattr(self, name) >= 1, "is not positive")
        self._require("memory_gb", self.memory_gb is None or self.memory_gb > 0, "is not positive")
        for name, length in (("window", 3), ("spike_strides", 3), ("spike_channels", 4)):
            value = getattr(self, name)
            self._require(name, len(value) == length, f"does not have {length} entries")
            self._require(name, min(value) >= 1, "has an entry below 1")

    def _check_widths(self) -> None:
        dims = self.embed_dims
        self._require(
            "embed_dims", len(dims) > _STAGES, "needs 7 entries for the stages and one or more for stage 8"
        )
        self._require("embed_dims", min(dims) >= 1, "has an entry below 1")
        self._require(
            "embed_dims", dims[4:7] == dims[2::-1], "needs entries 4, 5, 6 equal to 2, 1, 0 for the skips"
        )
        self._require(
            "embed_dims", all(dim % 4 == 0 for dim in dims[:_STAGES]), "needs multiples of 4 in stages 1..7"
        )
        self._require(
            "embed_dims", len(set(dims[_STAGES:])) == 1, "needs one width for all groups of stage 8"
        )
        for name in ("depths", "num_heads"):
            value = getattr(self, name)
            self._require(
                name, len(value) == len(dims), f"does not have the {len(dims)} entries of embed_dims"
            )
            self._require(name, min(value) >= 1, "has an entry below 1")
        divides = all(dim % heads == 0 for dim, heads in zip(dims, self.num_heads, strict=True))
        self._require("num_heads", divides, f"does not divide embed_dims {dims}")

    def _check_parts(self) -> None:
        groups = range(_STAGES, len(self.embed_dims))
        self._require(
            "indep_reconsts",
            all(i in groups for i in self.indep_reconsts),
            f"names entries outside stage 8, {groups.start}..{groups.stop - 1}",
        )
        self._require(
            "checkpoint_stages",
            all(1 <= stage <= 8 for stage in self.checkpoint_stages),
            "names no stage in 1..8",
        )
        for dim in self.embed_dims[:_STAGES]:
            aligned = dim * self.neighbours
            self._require(
                "deformable_groups", aligned % self.deformable_groups == 0, f"does not divide {aligned}"
            )
            self._require(
                "deformable_groups",
                self.deformable_groups % self.neighbours == 0,
                f"is not a multiple of pa_frames / 2 = {self.neighbours}",
            )
            self._require("pa_frames", dim % self.neighbours == 0, f"halved does not divide embed_dims {dim}")
        if self.fusion == "none":
            self._require(
                "instants", not self.instants, "needs fusion: a blurry frame alone tells no instant"
            )
            return
        self._require(
            "spike_heads",
            all(dim % self.spike_heads == 0 for dim in self.spike_channels),
            f"does not divide spike_channels {self.spike_channels}",
        )
        self._require(
            "fusion_heads",
            all(dim % self.fusion_heads == 0 for dim in self.embed_dims[:FLOW_SCALES]),
            f"does not divide embed_dims {self.embed_dims[:FLOW_SCALES]}",
        )

    def _require(self, field: str, holds: bool, problem: str) -> None:
        if not holds:
            raise ValueError(f"{field} {getattr(self, field)!r} {problem}")

    @property
    def neighbours(self) -> int:
        """Frames aligned from either side."""
        return self.pa_frames // 2


class SpikeVRT(nn.Module):
    """Restores sharp frames from blurry ones and the spikes recorded during their exposure.

    Backbone: Liang et al., "VRT: A Video Restoration Transformer" (2022), under its published parameter names, so its
    checkpoints load strictly when `fusion` is "none". What is added lies under `spike_encoder.` and `fusions.`.

    Args:
        config: size and parts.
        num_bins: K of the voxel grids; without fusion it is not used.

    Raises:
        ValueError: if num_bins is not positive with fusion.
    """

    def __init__(self, config: NetworkConfig, num_bins: int) -> None:
        super().__init__()
        if config.fusion != "none" and num_bins < 1:
            raise ValueError(f"num_bins {num_bins} is not positive")
        self.config = config
        self.num_bins = num_bins
        dims = config.embed_dims
        drop_paths = _drop_path_rates(config)

        self.conv_first = Conv3d(3 * (1 + 2 * 4), dims[0], (1, 3, 3), padding=(0, 1, 1))
        self.spynet = SpyNet() if config.flow == "spynet" else None
        for i in range(_STAGES):
            stage = Stage(
                dims[i - 1],
                dims[i],
                _KINDS[i],
                window=config.window,
                num_heads=config.num_heads[i],
                mlp_ratio=config.mlp_ratio,
                drop_paths=drop_paths[i],
                mutual_depth=int(config.depths[i] * config.mul_attn_ratio),
                neighbours=config.neighbours,
                deformable_groups=config.deformable_groups,
                offset_limit=10.0 / 2 ** _SCALES[i],
            )
            self.add_module(f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList(
            [nn.Sequential(nn.Identity(), nn.LayerNorm(dims[6]), nn.Linear(dims[6], dims[7]))]
        )
        for i in range(_STAGES, len(dims)):
            window = (1, *config.window[1:]) if i in config.indep_reconsts else config.window
            self.stage8.append(
                ResidualAttentionGroup(dims[i], window, config.num_heads[i], config.mlp_ratio, drop_paths[i])
            )
        self.norm = nn.LayerNorm(dims[-1])
        self.conv_after_body = nn.Linear(dims[-1], dims[0])
        self.conv_last = Conv3d(dims[0], 3, (1, 3, 3), padding=(0, 1, 1))

        self.apply(init_linear)
        # A fresh network returns its input: training starts at the blurry frame instead of finding it first.
        nn.init.zeros_(self.conv_last.weight)
        nn.init.zeros_(self.conv_last.bias)

        # Last, so that one seed gives networks with and without fusion the same backbone.
        self.spike_encoder, self.fusions = _spike_branch(config, num_bins)

    def forward(self, blurry: Tensor, voxels: Tensor | None = None, instants: Tensor | None = None) -> Tensor:
        """Restore the frames, as (B, T, 3, H, W), not clamped.

        Any T, H and W: the clip is padded inside (last frame repeated; reflected at the bottom and right) and the
        result cropped. Nothing is padded when H and W are multiples of 8 and at least 8 windows, and T > pa_frames / 2.

        Args:
            blurry: (B, T, 3, H, W), RGB in [0, 1].
            voxels: (B, T, K, Hs, Ws), normalised voxel grids at any resolution; ignored without fusion.
            instants: (B, T), the wanted instant of each exposure from 0 to 1; with `config.instants`, and only then.

        Raises:
            ValueError: if the shapes do not fit the network or each other, or instants are missing or not taken.
        """
        self._check_inputs(blurry, voxels, instants)
        if instants is not None:
            voxels = with_instants(voxels, instants)
        frames, height, width = blurry.shape[1], *blurry.shape[-2:]
        padded = self._padded_size(frames, height, width)
        if padded != (frames, height, width):
            if voxels is not None:
                scaled = (
                    round(voxels.shape[-2] * padded[1] / height),
                    round(voxels.shape[-1] * padded[2] / width),
                )
                voxels = pad_clip(voxels, (padded[0], *scaled))
            blurry = pad_clip(blurry, padded)
        return self._restore(blurry, voxels)[:, :frames, :, :height, :width]

    def pieces(self) -> dict[str, nn.Module]:
        """The modules of the stages that are recomputed one by one in backward, if their stage is; see `parts`."""
        return {name: module for name, module in self.named_modules() if _PIECE.fullmatch(name)}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the pieces of the stages at full resolution, the spike encoder and the fusions, in place.

        These stages are four fifths of the backbone's operations. Pieces of the same code and shapes share one graph,
        10 for the 36 of the reference backbone. The rest stays eager: smaller stages are made of the same operators
        and would take as long to compile, the flows convolve only.

        Args:
            args, kwargs: of `torch.compile`.
        """
        branch = [
            part for name, part in self.parts().items() if name.startswith(("spike_encoder", "fusions"))
        ]
        full = [piece for name, piece in self.pieces().items() if _FULL_SIZE_PIECE.fullmatch(name)]
        for module in (*full, *branch):
            module.compile(*args, **kwargs)

    def parts(self) -> dict[str, nn.Module]:
        """What the network is made of, by names in the state dict, in the order of `forward`."""
        names = ["conv_first"] if self.spynet is None else ["spynet", "conv_first"]
        if self.spike_encoder is not None:
            names.append("spike_encoder")
        for number in range(1, _STAGES + 1):
            names.append(f"stage{number}")
            if self.spike_encoder is not None and number <= FLOW_SCALES:
                names.append(f"fusions.{number - 1}")
        names += [f"stage8.{i}" for i in range(len(self.stage8))]
        names += ["norm", "conv_after_body", "conv_last"]
        return {name: self.get_submodule(name) for name in names}

    def _restore(self, blurry: Tensor, voxels: Tensor | None) -> Tensor:
        flows = self._flows(blurry)
        aligned = align_frames(blurry, flows[0])
        first = self.conv_first(aligned.transpose(1, 2))
        spikes = self._spike_features(voxels)

        x = first
        skips = []
        for i, (fuse, spike) in enumerate(zip(self.fusions, spikes, strict=True), start=1):
            x = fuse(self._stage(i, x, flows), spike)  # (B, C, T, H / 2**(i - 1), W / 2**(i - 1))
            skips.append(x)
        x1, x2, x3, x4 = skips
        x = self._stage(5, x4, flows)
        x = self._stage(6, x + x3, flows)
        x = self._stage(7, x + x2, flows)
        x = self._reconstruct(x + x1)
        return self.conv_last(first + x).transpose(1, 2) + blurry

    def _flows(self, blurry: Tensor) -> list[Flows | None]:
        """Flows on four scales, full resolution first."""
        if self.spynet is None:
            return [None] * FLOW_SCALES
        with full_precision(blurry):
            neighbours = neighbour_flows(self.spynet, blurry)
            return [compose_flows(scale, self.config.neighbours) for scale in neighbours]

    def _spike_features(self, voxels: Tensor | None) -> list[Tensor] | list[None]:
        if self.spike_encoder is None:
            return [None] * FLOW_SCALES
        return self.spike_encoder(voxels.transpose(1, 2))

    def _stage(self, number: int, x: Tensor, flows: list[Flows | None]) -> Tensor:
        stage = getattr(self, f"stage{number}")
        return stage(x, flows[_SCALES[number - 1]], self._run(number))

    def _reconstruct(self, x: Tensor) -> Tensor:
        """Stage 8 at full resolution and the way back to the width of `conv_first`."""
        x = x.permute(0, 2, 3, 4, 1)
        entry, *groups = self.stage8
        x = entry(x)
        for group in groups:
            x = group(x, self._run(8))
        return self.conv_after_body(self.norm(x)).permute(0, 4, 1, 2, 3)

    def _run(self, stage: int) -> Run:
        return recompute if stage in self.config.checkpoint_stages else keep

    def _padded_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The smallest (T, H, W) the network can work on that holds the clip."""
        _, rows, columns = self.config.window
        return (
            max(frames, self.config.neighbours + 1),
            max(-(-height // _COARSEST), rows) * _COARSEST,
            max(-(-width // _COARSEST), columns) * _COARSEST,
        )

    def _check_inputs(self, blurry: Tensor, voxels: Tensor | None, instants: Tensor | None) -> None:
        if blurry.ndim != 5 or blurry.shape[2] != 3:
            raise ValueError(f"blurry {tuple(blurry.shape)} is not (B, T, 3, H, W)")
        if self.config.instants != (instants is not None):
            wants = "needs" if self.config.instants else "takes no"
            raise ValueError(f"the network {wants} instants, by its config")
        if self.spike_encoder is None:
            return
        if voxels is None:
            raise ValueError(f"fusion {self.config.fusion!r} needs voxels; got None")
        if voxels.ndim != 5 or voxels.shape[:3] != (*blurry.shape[:2], self.num_bins):
            raise ValueError(
                f"voxels {tuple(voxels.shape)} do not fit blurry {tuple(blurry.shape)} and {self.num_bins} bins"
            )


def build_network(config: NetworkConfig, num_bins: int) -> SpikeVRT:
    """Make the network with fresh weights.

    Args:
        config: size and parts.
        num_bins: bins of the voxel grids it will be given.
    """
    return SpikeVRT(config, num_bins)


def pad_clip(clip: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Pad (B, T, C, H, W) at the end to (T, H, W) = size: time by its last frame, space by reflection.

    Reflection goes back and forth where the padding is longer than the image.
    """
    for axis, wanted, reflect in ((1, size[0], False), (3, size[1], True), (4, size[2], True)):
        have = clip.shape[axis]
        if wanted != have:
            index = torch.arange(wanted, device=clip.device)
            if reflect and have > 1:
                index = (have - 1) - (index % (2 * have - 2) - (have - 1)).abs()
            clip = clip.index_select(axis, index.clamp(max=have - 1))
    return clip


def _spike_branch(config: NetworkConfig, num_bins: int) -> tuple[SpikeEncoder | None, nn.ModuleList]:
    """The spike encoder and the fusion after each of stages 1..4."""
    if config.fusion == "none":
        return None, nn.ModuleList(RGBOnly() for _ in range(FLOW_SCALES))
    chunking = Chunking(
        mode=config.chunking,
        shape=config.chunk_shape,
        size=config.chunk_size,
        max_batch_tokens=config.max_batch_tokens,
    )
    told = INSTANT_CHANNELS if config.instants else 0
    encoder = SpikeEncoder(
        num_bins + told, config.spike_channels, config.spike_strides, config.spike_heads, chunking
    )
    widths = zip(config.embed_dims[:FLOW_SCALES], config.spike_channels, strict=True)
    fusions = nn.ModuleList(
        TemporalCrossAttnFuse(channels, spikes, config.fusion_heads, chunking) for channels, spikes in widths
    )
    return encoder, fusions


def _drop_path_rates(config: NetworkConfig) -> list[list[float]]:
    """For each entry of `depths`, the rates of its blocks on one ramp from 0 to drop_path_rate."""
    total = sum(config.depths)
    ramp = iter(config.drop_path_rate * i / max(total - 1, 1) for i in range(total))
    return [[next(ramp) for _ in range(depth)] for depth in config.depths]
