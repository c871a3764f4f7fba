"""Where the numbers of an evaluation come from: networks, store, settings, versions, and how to repeat it."""

from typing import Any

from model.checkpoint import versions
from model.evaluation.command import repeat_command
from model.evaluation.config import EvaluateConfig
from model.evaluation.lineup import Entrant, Lineup
from model.evaluation.methods import RESTORED
from model.parallel import device_name
from pipeline.config import to_plain
from pipeline.store import Store


def provenance(lineup: Lineup, store: Store, config: EvaluateConfig) -> dict[str, Any]:
    """Plain values, for `summary.json` and the report."""
    networks = {
        name: _network(entrant) for name, entrant in lineup.entrants.items() if name not in lineup.ablated
    }
    found = {
        "store": {"path": store.place, "name": store.name, "fingerprint": store.fingerprint},
        "networks": networks,
        "settings": to_plain(config),
        "versions": versions() | {"device": device_name(lineup.device)},
        "command": repeat_command(
            networks[RESTORED]["checkpoint"],
            store.place,
            to_plain(config),
            to_plain(EvaluateConfig()),
            {name: network["checkpoint"] for name, network in networks.items() if name != RESTORED},
        ),
    }
    changes = {name: _changes(lineup.entrants[name]) for name in lineup.ablated}
    return found | ({"ablations": changes} if changes else {})


def _network(entrant: Entrant) -> dict[str, Any]:
    info = entrant.restorer.info
    return {
        "checkpoint": str(info.path),
        "step": info.step,
        "digest": info.header.get("digest"),
        "averaged_weights": info.averaged,
        "trained_on": dict(info.store),
        "voxels": entrant.voxels,
        "tiling": to_plain(entrant.tiling),
        "config": to_plain(info.config),
    }


def _changes(entrant: Entrant) -> dict[str, Any]:
    """Which spikes a row had, by sequence, and how many frames it lacks."""
    changed = entrant.changed or {}
    return {
        "spikes": {sequence: spikes.source for sequence, spikes in changed.items()},
        "left_out_frames": sum(int((~spikes.there).sum()) for spikes in changed.values()),
    }
