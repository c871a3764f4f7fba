import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.losses import CombinedLoss, LossConfig, charbonnier
from model.vgg import VggFeatures


def test_charbonnier_by_hand() -> None:
    restored, sharp = torch.tensor([0.0, 0.5]), torch.tensor([0.0, 0.2])
    wanted = (0.01 + math.sqrt(0.09 + 0.0001)) / 2
    assert charbonnier(restored, sharp, 0.01).item() == pytest.approx(wanted, rel=1e-6)


def test_charbonnier_of_half_precision_is_computed_in_float32() -> None:
    value = charbonnier(torch.full((1000,), 0.5, dtype=torch.float16), torch.full((1000,), 0.5), 1e-3)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1e-3, rel=1e-5)  # 1e-6 would be lost in float16


def test_without_weight_the_perceptual_term_needs_no_file() -> None:
    loss = CombinedLoss(LossConfig(perceptual_weight=0.0, charbonnier_weight=2.0))
    terms = loss(torch.ones(1, 1, 3, 4, 4), torch.zeros(1, 1, 3, 4, 4))
    assert loss.perceptual is None and terms.perceptual == 0
    assert terms.total == 2 * terms.charbonnier


def test_adds_the_weighted_terms(tmp_path: Path) -> None:
    state = VggFeatures(("relu1_2",)).features.state_dict()
    save_file({f"features.{name}": value for name, value in state.items()}, tmp_path / "vgg.safetensors")
    config = LossConfig(perceptual_layers=("relu1_2",), vgg_weights=tmp_path / "vgg.safetensors")
    terms = CombinedLoss(config)(torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 3, 16, 16))
    assert terms.perceptual > 0
    torch.testing.assert_close(terms.total, terms.charbonnier + 0.1 * terms.perceptual)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"perceptual_layers": ("relu9_9",)}, "relu9_9"),
        ({"perceptual_layers": ()}, "perceptual_layers"),
        ({"charbonnier_weight": 0.0, "perceptual_weight": 0.0}, "nothing to minimise"),
        ({"perceptual_weight": -1.0}, "negative"),
        ({"charbonnier_delta": 0.0}, "charbonnier_delta"),
    ],
)
def test_refuses_settings_that_make_no_loss(values: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LossConfig(**values)
