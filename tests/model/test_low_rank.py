import pytest
import torch
from torch import nn

from model.low_rank import Linear, is_update


def test_is_a_linear_layer_until_it_is_adapted() -> None:
    ours, plain = Linear(3, 5), nn.Linear(3, 5)
    plain.load_state_dict(ours.state_dict())  # strictly: the same names
    x = torch.randn(7, 3)
    assert torch.equal(ours(x), plain(x))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_update_changes_nothing_at_first_and_leaves_the_names_of_the_layer_alone(
    precision: torch.dtype,
) -> None:
    layer, x = Linear(3, 5), torch.randn(7, 3)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        before = layer(x)
        layer.adapt(2, scale=4.0)
        assert torch.equal(layer(x), before)
    assert list(layer.state_dict()) == ["weight", "bias", "lora.down", "lora.up"]
    assert layer.lora.down.shape == (2, 3) and layer.lora.up.shape == (5, 2)
    assert layer.lora.down.abs().min() > 0  # or `up` would have no gradient either


def test_adds_the_scaled_product() -> None:
    layer = Linear(1, 1)
    layer.adapt(1, scale=0.5)
    with torch.no_grad():
        for value, number in (
            (layer.weight, 2.0),
            (layer.bias, 1.0),
            (layer.lora.down, 3.0),
            (layer.lora.up, 5.0),
        ):
            value.fill_(number)
        assert layer(torch.tensor([10.0])).item() == 2 * 10 + 1 + 0.5 * 5 * 3 * 10


def test_an_update_has_the_type_of_the_layer() -> None:
    layer = Linear(2, 2).double()
    layer.adapt(1, scale=1.0)
    assert layer(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


def test_knows_an_update_by_its_name() -> None:
    assert is_update("stage1.attn.proj.lora.up") and not is_update("stage1.lorax.weight")
