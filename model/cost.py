"""What a network costs: parameters, floating point operations, and the activations that training keeps.

Nothing is computed: FLOPs are counted on meta tensors and bytes on fake tensors of the training device, by running the
network itself, so the figures are those of the code as it is.
"""

import collections
import contextlib
import functools
import gc
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from model.network import NetworkConfig, SpikeVRT, build_network
from model.parallel import Parallel
from model.training.config import TrainConfig
from model.training.phases import largest_phase
from pipeline.errors import ConfigError

STAGES = range(1, 9)
"""The stages whose activations can be recomputed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSize:
    """A batch of clips that a network is given.

    Attributes:
        batch: clips.
        frames: T.
        crop: height and width in RGB pixels.
        num_bins: K of the voxel grids.
        scale: RGB pixels per spike pixel.
    """

    batch: int
    frames: int
    crop: int
    num_bins: int
    scale: int = 1

    def inputs(self, config: NetworkConfig, device: torch.device | str) -> tuple[Tensor | None, ...]:
        """What the network is called with, empty: `blurry`, `voxels`, and `instants` if it takes them."""
        blurry = torch.empty(self.batch, self.frames, 3, self.crop, self.crop, device=device)
        if config.fusion == "none":
            return blurry, None
        side = self.crop // self.scale
        voxels = torch.empty(self.batch, self.frames, self.num_bins, side, side, device=device)
        if not config.instants:
            return blurry, voxels
        return blurry, voxels, torch.empty(self.batch, self.frames, device=device)


def clip_size(config: TrainConfig, num_bins: int, scale: int) -> ClipSize:
    """What a process is given at once in training, in the phase that takes most.

    Args:
        num_bins, scale: of the voxel grids.
    """
    phase = largest_phase(config)
    return ClipSize(
        batch=phase.batch_size,
        frames=phase.clip.num_frames,
        crop=phase.clip.crop,
        num_bins=num_bins,
        scale=scale,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Counted operations of one batch; a multiplication with its addition is two.

    Attributes:
        forward: of every module by its name in the state dict, with what lies in it; "" is the network.
        step: forward and backward without recomputation of stages; 0 if only the forward was counted.
    """

    forward: Mapping[str, int]
    step: int

    def of(self, name: str) -> int:
        """FLOPs of a module's forward; 0 if it was not called."""
        return self.forward.get(name, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A module whose activations can be recomputed if it belongs to a stage, for one batch.

    Attributes:
        name: as in the state dict.
        flops: of its forward.
        saved_bytes: activations made within it that are kept for its backward, without its inputs and outputs.
    """

    name: str
    flops: int
    saved_bytes: int

    @property
    def part(self) -> str:
        """The part of the network that it is or lies in: "stage3", "stage8", "fusions"."""
        return self.name.partition(".")[0]

    @property
    def stage(self) -> int | None:
        """The stage that it lies in, 1..8."""
        return int(self.part.removeprefix("stage")) if self.part.startswith("stage") else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """What a training step keeps for backward.

    Attributes:
        pieces: in the order of the forward.
        between_bytes: what is kept in any case, by the part in which it is made: inputs and outputs of the pieces,
            and what is made around them. "" is what is made between the parts (flows, skips).
    """

    pieces: tuple[Piece, ...]
    between_bytes: Mapping[str, int]

    def saved_bytes(self, part: str) -> int:
        """All that is made in a part and kept if nothing is recomputed."""
        return self.between_bytes.get(part, 0) + sum(p.saved_bytes for p in self.pieces if p.part == part)

    def peak_bytes(self, stages: Collection[int] = ()) -> int:
        """The most that is kept at any time of a step that recomputes the pieces of `stages`.

        That is all that the forward keeps, or in backward what it kept up to a piece that is being recomputed and what
        that piece keeps; later ones are done by then.
        """
        kept = peak = sum(self.between_bytes.values())
        for piece in self.pieces:
            peak = max(peak, kept + piece.saved_bytes)
            if piece.stage not in stages:
                kept += piece.saved_bytes
        return peak

    def recomputed_flops(self, stages: Collection[int]) -> int:
        """FLOPs that recomputing `stages` adds to a step, at most: the last operator of a piece is left out."""
        return sum(piece.flops for piece in self.pieces if piece.stage in stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputation:
    """Stages whose activations are recomputed in backward, and what that changes.

    Attributes:
        stages: in order.
        bytes: most activations kept at any time.
        bytes_without: the same if nothing is recomputed.
        extra_flops: added to a step, as a share of it.
    """

    stages: tuple[int, ...]
    bytes: int
    bytes_without: int
    extra_flops: float

    def __str__(self) -> str:
        kept = f"{self.bytes / 1e9:.1f} of {self.bytes_without / 1e9:.1f} GB saved activations"
        if not self.stages:
            return f"checkpointing no stage: {kept}"
        noun = "stage" if len(self.stages) == 1 else "stages"
        which = ", ".join(map(str, self.stages))
        return f"checkpointing {noun} {which}: {kept}, +{100 * self.extra_flops:.0f} % FLOPs"


def effect_of(activations: Activations, stages: Iterable[int], forward_flops: int) -> Recomputation:
    """What recomputing `stages` changes in a step of a network whose forward has `forward_flops`."""
    chosen = tuple(sorted(set(stages)))
    return Recomputation(
        stages=chosen,
        bytes=activations.peak_bytes(chosen),
        bytes_without=activations.peak_bytes(),
        # A backward takes twice the products of its forward: one for the input, one for the weights.
        extra_flops=activations.recomputed_flops(chosen) / (3 * forward_flops),
    )


def choose_stages(
    activations: Activations, memory_gb: float, always: Collection[int] = ()
) -> tuple[int, ...]:
    """The stages to recompute so that the activations keep within a budget, at the least cost.

    Args:
        activations: measured at the training clip size.
        memory_gb: 1e9 bytes.
        always: stages that are recomputed in any case.

    Raises:
        ConfigError: nothing fits; names the smallest budget that can be met.
    """
    free = [stage for stage in STAGES if stage not in always]
    added = itertools.chain.from_iterable(itertools.combinations(free, n) for n in range(len(free) + 1))
    sets = [tuple(sorted({*always, *some})) for some in added]
    fitting = [stages for stages in sets if activations.peak_bytes(stages) <= memory_gb * 1e9]
    if not fitting:
        least = min(activations.peak_bytes(stages) for stages in sets)
        enough = -(-least // 10**6) / 1000  # rounded up: it must be enough
        raise ConfigError(
            f"network.memory_gb={memory_gb:g}: the activations of a step cannot be kept below {enough} GB",
            f"use network.memory_gb={enough}, or lower clip.crop, clip.num_frames or batch_size",
        )
    return min(
        fitting, key=lambda stages: (activations.recomputed_flops(stages), activations.peak_bytes(stages))
    )


def plan_recomputation(config: NetworkConfig, clip: ClipSize, place: Parallel) -> Recomputation | None:
    """The stages to recompute so that a training step keeps to `config.memory_gb`; None where that sets no limit.

    Takes some seconds and no memory. The numbers that training computes do not depend on the outcome.

    Raises:
        ConfigError: the budget cannot be met.
    """
    if config.memory_gb is None:
        return None
    flops = count_flops(config, clip, backward=False)
    activations = measure_activations(config, clip, place, flops)
    stages = choose_stages(activations, config.memory_gb, config.checkpoint_stages)
    return effect_of(activations, stages, flops.of(""))


def count_flops(config: NetworkConfig, clip: ClipSize, *, backward: bool = True) -> Flops:
    """Count the matrix products, convolutions and attentions, and nothing else.

    Every parameter takes part in the backward, as after `optim.flow_freeze_steps`. The loss is not counted.
    """
    network = _meta_network(replace(config, checkpoint_stages=()), clip.num_bins).train()
    counter = FlopCounterMode(display=False)
    with counter:
        restored = network(*clip.inputs(config, "meta"))
        by_module = {name: sum(count.values()) for name, count in counter.get_flop_counts().items()}
        if backward:
            restored.sum().backward()
    root = type(network).__name__
    forward = {name.removeprefix(root).removeprefix("."): count for name, count in by_module.items()}
    return Flops(forward=forward, step=counter.get_total_flops() if backward else 0)


def measure_activations(config: NetworkConfig, clip: ClipSize, place: Parallel, flops: Flops) -> Activations:
    """Measure what a training step keeps for backward, on fake tensors of the device and precision of `place`.

    Counted are the storages that are alive after the forward, each once, whoever keeps them; not the parameters and
    the batch. The inputs and outputs of all pieces count as kept, even where only a recomputation would need them.

    Args:
        flops: of the same network, for the pieces.
    """
    network = _meta_network(replace(config, checkpoint_stages=()), clip.num_bins).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device=place.device)
        inputs = clip.inputs(config, place.device)
        uncounted = [*network.parameters(), *network.buffers(), *_tensors(inputs)]
        storages = _Storages(network, uncounted)
        with storages, place.autocast():
            restored = network(*inputs)
        saved = storages.kept_bytes()
        del restored  # was to stay alive until here
    pieces = [name for name in storages.entered if name in network.pieces() or not name.startswith("stage")]
    between: collections.Counter[str] = collections.Counter()
    for name, size in saved.items():
        if name not in pieces:
            between[name.partition(".")[0]] += size
    return Activations(
        pieces=tuple(Piece(name=p, flops=flops.of(p), saved_bytes=saved.get(p, 0)) for p in pieces),
        between_bytes=dict(between),
    )


class _Storages(TorchDispatchMode):
    """Keeps track of the storages that are made by operators, and of the parts and pieces that they are made in.

    Args:
        network: called once while this is active.
        uncounted: tensors that are there already.
    """

    def __init__(self, network: SpikeVRT, uncounted: Iterable[Tensor]) -> None:
        super().__init__()
        self.entered: list[str] = []
        self._network = network
        self._uncounted = {_address(tensor) for tensor in uncounted}
        # A weak reference keeps the address of its storage from being used again.
        self._made: dict[int, tuple[StorageWeakRef, int, str]] = {}
        self._within = [""]
        self._passed: list[Tensor] = []  # alive as long as this is
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for name, module in {**self._network.parts(), **self._network.pieces()}.items():
            for handle in (
                module.register_forward_pre_hook(functools.partial(self._enter, name)),
                module.register_forward_hook(self._leave),
            ):
                self._hooks.callback(handle.remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference.cdata not in self._uncounted:
                self._made.setdefault(reference.cdata, (reference, storage.nbytes(), self._within[-1]))
        return out

    def kept_bytes(self) -> dict[str, int]:
        """Bytes that are alive, by the part or piece in which they were made; "" is outside of all.

        What goes in and out of pieces belongs to the part that they lie in.
        """
        gc.collect()
        passed = {_address(tensor) for tensor in self._passed}
        kept: collections.Counter[str] = collections.Counter()
        for address, (reference, size, within) in self._made.items():
            if not reference.expired():
                kept[within.partition(".")[0] + "." if address in passed else within] += size
        return dict(kept)

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self.entered.append(name)
        self._within.append(name)
        self._passed += _tensors(inputs)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._within.pop()
        self._passed += _tensors(output)


def _address(tensor: Tensor) -> int:
    return StorageWeakRef(tensor.untyped_storage()).cdata


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _meta_network(config: NetworkConfig, num_bins: int) -> SpikeVRT:
    with torch.device("meta"):
        return build_network(config, num_bins)
