from dataclasses import replace

import pytest
import torch

from model.exporting.parity import agree, random_clip
from model.exporting.standalone import ClipShape, description, standalone
from model.normalize import VoxelNormalizer
from pipeline.errors import UsageError
from tests.model.exporting.conftest import NORMALIZATION

SHAPE = ClipShape(frames=2, height=8, width=12, num_bins=4, scale=2)


def test_shapes_of_what_goes_in() -> None:
    assert SHAPE.inputs == {"blurry": (1, 2, 3, 8, 12), "voxels": (1, 2, 4, 4, 6)}
    without = ClipShape(frames=2, height=8, width=12, num_bins=None, scale=2)
    assert without.inputs == {"blurry": (1, 2, 3, 8, 12)}


def test_a_network_that_is_told_instants_takes_them_too(restorer) -> None:
    class Told(torch.nn.Module):
        def forward(self, blurry, voxels, instants):
            return blurry * instants[..., None, None, None]

    shape = replace(SHAPE, takes_instants=True)
    assert shape.inputs["instants"] == (1, 2)
    made = restorer(Told(), config={"network": {"instants": True}, "clip": {"num_frames": 2}})
    clip = random_clip(shape)
    (agreement,) = agree(made, lambda inputs: standalone(made)(**inputs), [clip], 1e-6)
    assert agreement.clip == "random" and clip.instants.unique().numel() == 2
    about = description(made, shape, "0.1")["inputs"]["instants"]
    assert about["shape"] == [1, 2] and "from 0" in about["meaning"]


def test_refuses_parts_of_spike_pixels() -> None:
    with pytest.raises(UsageError, match="9x12 is not a multiple of the 2 RGB pixels") as error:
        ClipShape(frames=2, height=9, width=12, num_bins=4, scale=2)
    assert error.value.fix == "--size 8x12"


@pytest.mark.parametrize("transform", ["log1p", "count"])
def test_normalizes_as_in_training(transform: str, restorer) -> None:
    used = replace(NORMALIZATION, transform=transform)
    shape = ClipShape(frames=2, height=8, width=8, num_bins=4, scale=1)
    clip, made = random_clip(shape), restorer(normalization=used)
    made = replace(made, normalizer=VoxelNormalizer(used.table()))
    with torch.no_grad():
        found = standalone(made)(*clip.inputs.values())
        expected = made(clip.blurry, clip.counts).clamp(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.min() >= 0 and found.max() <= 1 and found.std() > 0.1


def test_says_how_to_call_it_and_where_it_is_from(restorer) -> None:
    about = description(restorer(), SHAPE, "0.1")
    assert about["checkpoint"] == {"name": "best.safetensors", "step": 7, "digest": "sha256:0123"}
    assert (about["num_bins"], about["scale"]) == (4, 2)
    assert about["normalization"] == {"transform": "log1p", "mean": 0.3, "std": 0.5}
    assert about["inputs"]["voxels"]["shape"] == [1, 2, 4, 4, 6]
    assert about["made_by"].startswith("spk 0.1, torch ")
    alone = ClipShape(frames=2, height=8, width=12, num_bins=None, scale=1)
    without = description(restorer(takes_spikes=False), alone, "0.1")
    assert list(without["inputs"]) == ["blurry"] and without["normalization"] is None
