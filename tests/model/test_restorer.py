"""Stored bytes through the normalization of training and the network, from a real checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.network import build_network
from model.normalize import VoxelNormalizer, to_unit
from model.parallel import Parallel
from model.restorer import find_info, load_restorer
from pipeline.errors import CheckpointError, UsageError
from tests.model.conftest import NORMALIZATION

PLACE = Parallel(device=torch.device("cpu"))


def test_restores_as_the_trained_network_does(saved: Any, tmp_path: Path, tiny: Any) -> None:
    network = saved(tmp_path / "x.safetensors", tiny())
    restorer = load_restorer(tmp_path / "x.safetensors", PLACE)
    blurry = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    counts = torch.randint(0, 9, (1, 2, 4, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(to_unit(blurry), VoxelNormalizer(NORMALIZATION.table())(counts))
        assert torch.equal(restorer(blurry, counts), expected)
    assert (restorer.takes_spikes, restorer.num_frames) == (True, 3)


def test_a_network_without_fusion_takes_no_spikes(saved: Any, tmp_path: Path, tiny: Any) -> None:
    saved(tmp_path / "x.safetensors", tiny(fusion="none"))
    assert not load_restorer(tmp_path / "x.safetensors", PLACE).takes_spikes


def test_published_weights_restore_without_import(tmp_path: Path, tiny: Any) -> None:
    network = build_network(tiny(fusion="none", mul_attn_ratio=0.75), 0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    torch.save({"params": network.state_dict()}, tmp_path / "x.pth")
    restorer = load_restorer(tmp_path / "x.pth", PLACE)
    blurry = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(restorer(blurry, None), network(to_unit(blurry)))
    assert (restorer.takes_spikes, restorer.takes_instants, restorer.num_frames) == (False, False, 2)
    assert find_info(tmp_path / "x.pth") == restorer.info


def test_spikes_without_their_normalization_are_refused(saved: Any, tmp_path: Path, tiny: Any) -> None:
    saved(tmp_path / "x.safetensors", tiny(), normalization=None)
    with pytest.raises(CheckpointError, match="lacks the normalization"):
        load_restorer(tmp_path / "x.safetensors", PLACE)


def test_asks_for_the_instants_that_are_given_and_else_the_middle(
    saved: Any, tmp_path: Path, tiny: Any
) -> None:
    network = saved(tmp_path / "x.safetensors", tiny(instants=True))
    restorer = load_restorer(tmp_path / "x.safetensors", PLACE)
    blurry = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    counts = torch.randint(0, 9, (1, 2, 4, 16, 16), dtype=torch.uint8)
    told = torch.tensor([[0.1, 0.8]], dtype=torch.float64)
    voxels = VoxelNormalizer(NORMALIZATION.table())(counts)
    with torch.inference_mode():
        assert torch.equal(restorer(blurry, counts, told), network(to_unit(blurry), voxels, told.float()))
        middle = restorer(blurry, counts, torch.full((1, 2), 0.5))
        assert torch.equal(restorer(blurry, counts), middle)
        assert not torch.equal(restorer(blurry, counts, told), middle)
    assert restorer.takes_instants
    for outside in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="from 0 to 1"):
            restorer(blurry, counts, torch.tensor([[0.5, outside]]))


def test_a_network_of_one_instant_refuses_to_be_asked_for_another(
    saved: Any, tmp_path: Path, tiny: Any
) -> None:
    saved(tmp_path / "x.safetensors", tiny())
    restorer = load_restorer(tmp_path / "x.safetensors", PLACE)
    blurry = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(UsageError, match="the one it was trained for") as caught:
        restorer(blurry, torch.zeros(1, 2, 4, 16, 16, dtype=torch.uint8), torch.full((1, 2), 0.5))
    assert "network.instants=true" in caught.value.fix
    assert not restorer.takes_instants
