"""Who takes part: networks matched with a store, the same network with other spikes, and names."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.evaluation.config import EvaluateConfig
from model.evaluation.lineup import check_names, line_up
from model.evaluation.provenance import provenance
from pipeline.errors import UsageError

GRIDS = np.ones((3, 4, 8, 8), np.uint8)
SEQUENCES = [SimpleNamespace(name=name, num_frames=3, voxels=lambda name: GRIDS) for name in "ab"]
STORE = SimpleNamespace(
    scale=2,
    place="s.zarr",
    path=Path("s.zarr"),
    name="made",
    fingerprint="f00d",
    voxel_names=("k4",),
    voxel_name=lambda wanted: wanted,
)


def restorer(name: str, *, takes_spikes: bool = True) -> SimpleNamespace:
    info = SimpleNamespace(
        path=Path(name),
        voxels="k4",
        num_bins=4,
        scale=2,
        step=7,
        header={},
        averaged=False,
        store={},
        config={},
    )
    return SimpleNamespace(info=info, num_frames=4, takes_spikes=takes_spikes)


def lined_up(*, takes_spikes: bool = True, **settings: object):
    config = EvaluateConfig(**settings)
    networks = {
        "restored": restorer("run", takes_spikes=takes_spikes),
        "rgb": restorer("rgb", takes_spikes=False),
    }
    return line_up(networks, STORE, SEQUENCES, config, torch.device("cpu")), config


def test_rows_are_in_the_order_of_the_tables() -> None:
    lineup, _ = lined_up(ablate=("spikes=zero",), thresholds=(1, 2))
    assert lineup.methods == (
        *("restored", "spikes=zero", "threshold 2", "rgb", "spike_only", "spike_only threshold 2", "blurry"),
    )
    assert lineup.ablated == ("spikes=zero", "threshold 2")


def test_the_network_is_given_other_spikes_under_the_name_of_the_change() -> None:
    lineup, config = lined_up(ablate=("spikes=zero", "spikes=shuffle"))
    zero, restored = (lineup.entrants[name] for name in ("spikes=zero", "restored"))
    assert zero.restorer is restored.restorer and zero.tiling == restored.tiling
    assert restored.changed is None and not zero.changed["a"].grids[:].any()
    told = provenance(lineup, STORE, config)
    assert told["ablations"]["spikes=shuffle"] == {
        "spikes": {"a": "those of b", "b": "those of a"},
        "left_out_frames": 0,
    }
    assert list(told["networks"]) == ["restored", "rgb"]


def test_a_network_without_spikes_has_none_to_change() -> None:
    with pytest.raises(UsageError, match="run: takes no spikes"):
        lined_up(takes_spikes=False, ablate=("spikes=zero",))
    assert lined_up(takes_spikes=False)[0].ablated == ()


@pytest.mark.parametrize("name", ["", "blurry", "spikes=zero", "spike_only threshold 2"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    config = EvaluateConfig(ablate=("spikes=zero",), thresholds=(2,))
    with pytest.raises(UsageError, match="is taken"):
        check_names([name], config)
    check_names(["mine"], config)
