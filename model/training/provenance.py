"""Where a run comes from: what decides its weights, what its checkpoints carry along, what `run.json` says."""

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.checkpoint import versions
from model.lora import trainable
from model.parallel import Parallel, device_name
from model.training.config import TrainConfig
from pipeline.clips import ClipSource
from pipeline.config import to_plain
from pipeline.stats import Normalization
from pipeline.store import Store

logger = logging.getLogger(__name__)


def identity_of(config: TrainConfig, store: Store, source: ClipSource, place: Parallel) -> dict[str, Any]:
    """What decides the weights of a run, as far as it can be said beforehand."""
    plain = _deciding(config)
    batches = config.optim.accumulate * place.world
    for phase in plain["phases"]:
        phase["clips of a step"] = (phase.pop("batch_size") or config.batch_size) * batches
    return plain | {
        "clips of a step": config.batch_size * batches,
        "store fingerprint": store.fingerprint,
        "bins": source.num_bins,
    }


def identity_then(identity: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The identity of a checkpoint, with settings that there were not yet when it was written at their defaults.

    Args:
        identity: as the checkpoint has it.
        config: of now; nothing but its store is looked at.
    """
    return _filled(identity, _deciding(TrainConfig(store=config.store)))


def _deciding(config: TrainConfig) -> dict[str, Any]:
    """The settings without those that only say how a step's clips are shared out."""
    plain = to_plain(config)
    plain["optim"] = {key: value for key, value in plain["optim"].items() if key != "accumulate"}
    plain.pop("batch_size")
    return plain


def _filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(filled[key], Mapping):
            filled[key] = _filled(filled[key], default)
    return filled


def checkpoint_header(
    config: TrainConfig,
    store: Store,
    source: ClipSource,
    normalization: Normalization,
    identity: Mapping[str, Any],
    network: nn.Module,
    place: Parallel,
) -> dict[str, Any]:
    """What every checkpoint of a run says, whatever its step; see `CheckpointInfo`."""
    size = trainable(network)
    return {
        "config": to_plain(config),
        "identity": identity,
        "parameters": {"total": size.total, "trainable": size.parameters},
        "num_bins": source.num_bins,
        "scale": source.scale,
        "voxels": config.voxels,
        "normalization": to_plain(normalization),
        "store": {"path": store.place, "fingerprint": store.fingerprint},
        "rng": {"seed": config.seed, "scheme": "seeded anew for each (seed, step, process)"},
        "numerics": numerics(place),
        "versions": versions(),
    }


def generator_digest(place: Parallel) -> str:
    """SHA-256 of the state of torch's generators: a resumed run comes to the same one, though it is not restored."""
    states = [torch.get_rng_state()]
    if place.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(place.device))
    return hashlib.sha256(b"".join(state.numpy().tobytes() for state in states)).hexdigest()


def numerics(place: Parallel) -> dict[str, Any]:
    """What the last bits of a result depend on beside the settings that must stay: sums in another order differ."""
    on_cuda = place.device.type == "cuda"
    return {
        "device": device_name(place.device),
        "threads": None if on_cuda else torch.get_num_threads(),
        "processes": place.world,
        "precision": place.precision,
        "compile": place.compile,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch": torch.__version__,
    }


def warn_of_other_numerics(run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what keeps a resumed run from repeating an uninterrupted one bit for bit, if anything does."""
    changed = [
        f"{name} {now[name]} ({then[name]} before)"
        for name in now
        if name in then and then[name] != now[name]
    ]
    if changed:
        logger.warning(
            "%s: resumed with %s: as good as before, but not bit for bit what it would have been without a stop",
            *(run, ", ".join(changed)),
        )


def run_facts(config: TrainConfig, store: Store, network: nn.Module) -> dict[str, Any]:
    """What is true of a run from its first session to its last."""
    size = trainable(network)
    return {
        "parameters": size.total,
        "trainable": size.parameters,
        "store": {"path": store.place, "name": store.name, "fingerprint": store.fingerprint},
        "parent": str(config.init) if config.init else None,
    }


def session_facts(place: Parallel, from_step: int) -> dict[str, Any]:
    """What is true of one session of a run, beginning now after `from_step` steps."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": from_step,
        "device": device_name(place.device),
        "processes": place.world,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
