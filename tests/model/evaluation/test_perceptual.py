"""Protocols whose weights the user has."""

from pathlib import Path

import pytest
import torch

from model.evaluation.perceptual import LPIPS, load_protocols
from model.evaluation.protocols import PROTOCOLS
from model.lpips import Lpips
from pipeline.errors import CheckpointError
from tests.model.evaluation.pairs import candidate, frames, shot


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """LPIPS with AlexNet, in one file; the channels of the first activation count, and no others."""
    torch.manual_seed(0)
    network = Lpips("alex")
    state = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    heads = {
        f"lin{i}.model.1.weight": torch.full_like(head, float(i == 0)) for i, head in enumerate(network.heads)
    }
    torch.save(state | heads, tmp_path / "all.pth")
    return tmp_path / "all.pth"


def test_a_distance_of_the_rounded_frames_beside_psnr_and_ssim(weights: Path) -> None:
    sharp, image = frames(64, 64)
    plain, perceptual = load_protocols(["rgb8-all", "lpips-alex"], [weights])
    assert plain is PROTOCOLS["rgb8-all"]
    made = candidate(image)
    values = perceptual.score(made, shot(sharp))
    assert tuple(values) == perceptual.metrics == ("psnr", "ssim", "lpips")
    assert {name: values[name] for name in ("psnr", "ssim")} == plain.score(made, shot(sharp))
    assert 0 < values["lpips"] < 4  # the squared distance of two vectors of length 1
    assert perceptual.score(candidate(made.rgb8 / 255), shot(sharp))["lpips"] == values["lpips"]
    assert perceptual.score(candidate(sharp / 255 + 0.3 / 255), shot(sharp))["lpips"] == 0
    assert "AlexNet" in perceptual.text and "all.pth" in perceptual.text


def test_weights_are_missed_before_anything_is_scored(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lpips-vgg: .*no weights of its network"):
        load_protocols(["lpips-vgg"], [weights])


def test_their_names_are_not_those_of_others() -> None:
    assert not LPIPS.keys() & PROTOCOLS.keys()
