"""What a training config costs, for `spk inspect CONFIG`."""

from typing import Any

import torch
from torch import nn

from model.cost import Flops, choose_stages, clip_size, count_flops, effect_of, measure_activations
from model.lora import adapt, trainable
from model.network import SpikeVRT, build_network
from model.parallel import parallel
from model.training.config import TrainConfig
from pipeline.storage.places import is_remote
from pipeline.store import open_store

ASSUMED_BINS = 32
_TAIL = ("norm", "conv_after_body", "conv_last")


def config_facts(config: TrainConfig) -> dict[str, Any]:
    """Parameters, FLOPs and saved activations of a config's network at its clip size and batch.

    Bins and scale of the voxel grids come from the config's store, if it exists; else 32 bins at the frames' own
    resolution are assumed. Nothing is computed; it takes some seconds all the same.

    Raises:
        StoreError: the store exists and lacks the voxel grids.
        ConfigError: `network.memory_gb` cannot be met.
    """
    bins, scale = _voxels_of(config)
    clip = clip_size(config, bins or ASSUMED_BINS, scale)
    flops = count_flops(config.network, clip)
    with parallel(config.parallel) as place:
        activations = measure_activations(config.network, clip, place, flops)
    stages = config.network.checkpoint_stages
    if config.network.memory_gb is not None:
        stages = choose_stages(activations, config.network.memory_gb, stages)
    effect = effect_of(activations, stages, flops.of(""))
    with torch.device("meta"):
        network = build_network(config.network, clip.num_bins)
        adapt(network, config.lora)
    return {
        "kind": "config",
        "clip": {"batch": clip.batch, "frames": clip.frames, "height": clip.crop, "width": clip.crop},
        "num_bins": None if config.network.fusion == "none" else clip.num_bins,
        "scale": scale,
        "store": str(config.store) if bins else None,
        "device": place.device.type,
        "precision": place.precision,
        "parameters": count_parameters(network),
        "trainable": trainable(network).parameters,
        "flops": {
            "forward": flops.of(""),
            "step": flops.step,
            "step_checkpointed": flops.step + activations.recomputed_flops(stages),
        },
        "saved_bytes": {"step": effect.bytes_without, "step_checkpointed": effect.bytes},
        "checkpoint_stages": list(stages),
        "parts": [
            part | {"saved_bytes": sum(activations.saved_bytes(name) for name in part.pop("within"))}
            for part in _parts(network, flops)
        ],
        "between_bytes": activations.saved_bytes(""),
    }


def _voxels_of(config: TrainConfig) -> tuple[int | None, int]:
    """Bins (None if there is no store to ask) and scale of the voxel grids."""
    if not (is_remote(config.store) or config.store.exists()):
        return None, 1
    store = open_store(config.store)
    return store.normalization(store.voxel_name(config.voxels)).num_bins, store.scale


def _parts(network: SpikeVRT, flops: Flops) -> list[dict[str, Any]]:
    """Name, parameters and FLOPs of each part in the order of the forward, and which children of the network it is."""
    names = list(dict.fromkeys(name.partition(".")[0] for name in network.parts()))
    groups = {name: (name,) for name in names if name not in _TAIL} | {"tail": _TAIL}
    parts = []
    for name, within in groups.items():
        modules = {child: network.get_submodule(child) for child in within}
        called = [path for path in network.parts() if path.partition(".")[0] in within]
        part = {
            "name": name,
            "parameters": sum(map(count_parameters, modules.values())),
            "flops": sum(map(flops.of, called)),
            "within": within,
        }
        if name.startswith("stage"):
            part["pieces"] = _pieces(name, modules[name], flops)
        parts.append(part)
    return parts


def _pieces(name: str, stage: nn.Module, flops: Flops) -> list[dict[str, Any]]:
    if name == "stage8":
        groups = {f"group {i}" if i else "entry": (f"{i}",) for i in range(len(stage))}
    else:
        groups = {
            "reshape": ("reshape",),
            "group 1": ("residual_group1",),
            "group 2": ("residual_group2",),
            "linears": ("linear1", "linear2"),
            "offset convs": ("pa_deform.conv_offset",),
            "deformable conv": ("pa_deform",),
            "pa_fuse": ("pa_fuse",),
        }
    pieces = []
    for label, paths in groups.items():
        parameters = sum(count_parameters(stage.get_submodule(path)) for path in paths)
        count = sum(flops.of(f"{name}.{path}") for path in paths)
        if label == "deformable conv":  # what is left without the offset convolutions, which lie in it
            parameters -= pieces[-1]["parameters"]
            count -= pieces[-1]["flops"]
        pieces.append({"name": label, "parameters": parameters, "flops": count})
    return pieces


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())
