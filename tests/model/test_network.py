import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from model.instants import INSTANT_CHANNELS
from model.network import NetworkConfig, SpikeVRT, build_network, pad_clip

Tiny = Callable[..., NetworkConfig]
_FLOAT64 = {"output": 1e-9, "loss": 1e-10, "feat.stage": 2e-6, "feat.flow": 2e-6, "hooked": 2e-6}
_FLOAT32 = {"output": 3e-4, "loss": 1e-5, "feat.stage": 1e-3, "feat.flow": 1e-4, "hooked": 3e-4}


class GoldenRun(NamedTuple):
    """One forward and backward of a golden set, and everything the set has numbers for."""

    golden: Any
    limits: dict[str, float]
    output: Tensor
    loss: Tensor
    features: dict[str, Tensor]
    grads: dict[str, Tensor]
    hooked: Tensor


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def run(request: pytest.FixtureRequest, golden: Any) -> GoldenRun:
    return run_golden(golden, request.param)


def run_golden(golden: Any, dtype: torch.dtype, device: str = "cpu") -> GoldenRun:
    """Run a golden set on `device`; the results are brought back to the CPU."""
    network = build_network(golden.config, num_bins=0)
    network.load_state_dict(golden.state, strict=True)
    network = network.to(device, dtype).eval()
    features: dict[str, Tensor] = {}
    recorded: list[list[Tensor]] = []
    _record(network, features, recorded)

    clip = golden.tensors["input"].to(device, dtype).requires_grad_()
    output = network(clip)
    loss = ((output - golden.tensors["target"].to(device, dtype)).square() + 1e-6).sqrt().mean()
    loss.backward()
    grads = {name: parameter.grad for name, parameter in network.named_parameters()} | {"input": clip.grad}
    return GoldenRun(
        golden=golden,
        limits=_FLOAT64 if dtype == torch.float64 else _FLOAT32,
        output=output.detach().cpu(),
        loss=loss.detach().cpu(),
        features={name: x.detach().cpu() for name, x in features.items()},
        grads={name: x.cpu() for name, x in grads.items()},
        hooked=_restore_hooked(network, golden, clip.detach(), recorded[0]).cpu(),
    )


def _record(network: SpikeVRT, features: dict[str, Tensor], flows: list[list[Tensor]]) -> None:
    """Keep what the stages put out, the flows they get, and what SpyNet estimates."""

    def keep_stage(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            features.setdefault(f"feat.stage{number}", out)
            if number > 4:
                return
            for direction in ("backward", "forward"):
                for step, flow in enumerate(getattr(args[1], direction)):
                    features.setdefault(f"feat.flow_{direction}_{4 * step + number - 1}", flow)

        return hook

    for number in range(1, 8):
        getattr(network, f"stage{number}").register_forward_hook(keep_stage(number))

    def keep_entry(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        features.setdefault("feat.stage8_0", out.permute(0, 4, 1, 2, 3))

    def keep_flows(module: nn.Module, args: tuple[Any, ...], out: list[Tensor]) -> None:
        flows.append([x.detach() for x in out])

    network.stage8[0].register_forward_hook(keep_entry)
    network.spynet.register_forward_hook(keep_flows)


def _restore_hooked(network: SpikeVRT, golden: Any, clip: Tensor, flows: list[Tensor]) -> Tensor:
    """The output with affine functions in the place of the fusions; known flows, as SpyNet is slow in float64."""

    class Affine(nn.Module):
        def __init__(self, scale: float, shift: float) -> None:
            super().__init__()
            self.scale, self.shift = scale, shift

        def forward(self, rgb: Tensor, spikes: None) -> Tensor:
            return rgb * self.scale + self.shift

    class Known(nn.Module):
        def forward(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
            return flows

    hooks = zip(golden.hook["scale"], golden.hook["shift"], strict=True)
    network.fusions = nn.ModuleList(Affine(scale, shift) for scale, shift in hooks)
    network.spynet = Known()
    with torch.no_grad():
        return network(clip)


def _largest(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return (got.double() - want.double()).abs().max().item()


def test_output_and_loss_match_the_published_network(run: GoldenRun) -> None:
    assert _largest(run.output, run.golden.tensors["output"]) < run.limits["output"]
    assert abs(run.loss.item() - run.golden.tensors["loss"].item()) < run.limits["loss"]


def test_stages_and_flows_match_the_published_network(run: GoldenRun) -> None:
    names = [name for name in run.golden.tensors if name.startswith("feat.")]
    assert len(names) > 10
    for name in names:
        limit = run.limits["feat.flow" if name.startswith("feat.flow") else "feat.stage"]
        assert _largest(run.features[name], run.golden.tensors[name]) < limit, name


def test_gradients_match_the_published_network(run: GoldenRun) -> None:
    exact = run.output.dtype == torch.float64
    for name, want in run.golden.tensors.items():
        if name.startswith("grad."):
            limit = (2e-6 if exact else 1e-1) * want.abs().max().item()
            assert _largest(run.grads[name.removeprefix("grad.")], want) < limit, name


def test_gradient_norms_match_the_published_network(run: GoldenRun) -> None:
    exact = run.output.dtype == torch.float64
    for name, want in run.golden.grad_norms.items():
        got = run.grads[name].double().norm().item()
        assert got == pytest.approx(want, rel=1e-8 if exact else 1e-1), name


def test_fusion_sits_after_the_first_four_stages_and_in_the_skips(run: GoldenRun) -> None:
    assert _largest(run.hooked, run.golden.tensors["output_hooked"]) < run.limits["hooked"]


def test_has_the_names_and_shapes_of_published_checkpoints(
    official_config: NetworkConfig, golden_folder: Path
) -> None:
    listing = json.loads((golden_folder / "vrt" / "official_keys_deblur.json").read_text())
    with torch.device("meta"):
        network = build_network(official_config, num_bins=0)
    parameters = dict(network.named_parameters())
    got = {
        name: [
            list(x.shape),
            str(x.dtype).removeprefix("torch."),
            "param" if name in parameters else "buffer",
        ]
        for name, x in network.state_dict().items()
    }
    assert got == listing["keys"]
    assert sum(x.numel() for x in parameters.values()) == listing["num_params"]


def test_the_reference_model_is_the_published_backbone_and_a_spike_branch(
    official_config: NetworkConfig,
) -> None:
    assert dataclasses.replace(NetworkConfig(), fusion="none") == official_config
    with torch.device("meta"):
        names = set(build_network(NetworkConfig(), num_bins=32).state_dict())
        published = set(build_network(official_config, num_bins=0).state_dict())
    assert published < names
    assert {name.split(".")[0] for name in names - published} == {"spike_encoder", "fusions"}


def _clip(*shape: int, bins: int = 5, scale: int = 1) -> tuple[Tensor, Tensor]:
    batch, frames, height, width = shape
    voxels = torch.randn(batch, frames, bins, height // scale, width // scale)
    return torch.rand(batch, frames, 3, height, width), voxels


def _disturb(network: SpikeVRT) -> SpikeVRT:
    """Give weights that start at zero a value, so that every part counts."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def test_a_fresh_fusion_leaves_the_rgb_network_as_it_is(tiny: Tiny) -> None:
    torch.manual_seed(0)
    rgb_only = _disturb(build_network(tiny(fusion="none"), num_bins=0)).eval()
    fused = build_network(tiny(), num_bins=5).eval()
    missing = fused.load_state_dict(rgb_only.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"spike_encoder", "fusions"}
    blurry, voxels = _clip(2, 3, 24, 16)
    assert torch.equal(fused(blurry, voxels), rgb_only(blurry))
    _disturb(fused.fusions)
    assert not torch.equal(fused(blurry, voxels), rgb_only(blurry))


def test_one_seed_gives_the_same_backbone_with_and_without_fusion(tiny: Tiny) -> None:
    torch.manual_seed(3)
    rgb_only = build_network(tiny(fusion="none"), num_bins=0).state_dict()
    torch.manual_seed(3)
    fused = build_network(tiny(), num_bins=5).state_dict()
    assert all(torch.equal(fused[name], x) for name, x in rgb_only.items())


@pytest.mark.parametrize(
    "shape", [(1, 1, 16, 16), (2, 3, 24, 40), (1, 2, 19, 33), (1, 5, 5, 7), (1, 4, 1, 1)]
)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_restores_clips_of_any_size(shape: tuple[int, int, int, int], scale: int, tiny: Tiny) -> None:
    network = build_network(tiny(), num_bins=5).eval()
    blurry, voxels = _clip(*shape[:2], max(shape[2], scale), max(shape[3], scale), scale=scale)
    with torch.no_grad():
        assert network(blurry, voxels).shape == blurry.shape


def test_a_network_that_is_told_instants_is_the_same_but_for_its_first_spike_layer(tiny: Tiny) -> None:
    networks = []
    for instants in (False, True):
        torch.manual_seed(0)
        networks.append(build_network(tiny(instants=instants), num_bins=5))
    one, other = (network.state_dict() for network in networks)
    assert one.keys() == other.keys()
    first = "spike_encoder.pyramid.scales.0.0.weight"
    assert [name for name in one if one[name].shape != other[name].shape] == [first]
    assert (one[first].shape[1], other[first].shape[1]) == (5, 5 + INSTANT_CHANNELS)
    assert not [
        name
        for name in one
        if not name.startswith(("spike_", "fus")) and not torch.equal(one[name], other[name])
    ]


def test_restores_the_instant_it_is_told_and_learns_from_it(tiny: Tiny) -> None:
    torch.manual_seed(0)
    fresh = build_network(tiny(instants=True), num_bins=5).eval()
    blurry, voxels = _clip(2, 3, 20, 13)
    early, late = torch.full((2, 3), 0.1), torch.full((2, 3), 0.9)
    assert torch.equal(
        fresh(blurry, voxels, early), fresh(blurry, voxels, late)
    )  # a fusion that has learned nothing
    network = _disturb(fresh)
    one, other = (network(blurry, voxels, told) for told in (early, late))
    assert one.shape == blurry.shape and not torch.equal(one, other)
    only_last = torch.cat([early[:, :2], late[:, 2:]], dim=1)
    assert not torch.equal(network(blurry, voxels, only_last)[:, 2], one[:, 2])
    one.square().sum().backward()
    gradient = network.spike_encoder.pyramid.scales[0][0].weight.grad
    assert (gradient[:, -INSTANT_CHANNELS:].abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_refuses_instants_it_takes_none_of_and_the_lack_of_them(tiny: Tiny) -> None:
    blurry, voxels = _clip(1, 2, 16, 16)
    instants = torch.full((1, 2), 0.5)
    for takes, told in ((False, instants), (True, None), (True, instants[:, :1])):
        with pytest.raises(ValueError, match="instants"):
            build_network(tiny(instants=takes), num_bins=5)(blurry, voxels, told)
    with pytest.raises(ValueError, match="instants True needs fusion"):
        tiny(instants=True, fusion="none")


@pytest.mark.parametrize("pa_frames", [2, 4, 6])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_restores_with_flows_and_any_number_of_frames(pa_frames: int, frames: int, tiny: Tiny) -> None:
    torch.manual_seed(0)
    config = tiny(
        flow="spynet", pa_frames=pa_frames, embed_dims=(12,) * 9, deformable_groups=6, fusion="none"
    )
    blurry, _ = _clip(1, frames, 16, 24)
    with torch.no_grad():
        out = _disturb(build_network(config, num_bins=0)).eval()(blurry)
    assert out.shape == blurry.shape
    assert out.isfinite().all()


def test_pads_nothing_that_already_fits(tiny: Tiny) -> None:
    network = build_network(tiny(), num_bins=5).eval()
    blurry, voxels = _clip(1, 3, 16, 24)
    assert network._padded_size(3, 16, 24) == (3, 16, 24)
    assert pad_clip(blurry, (3, 16, 24)) is blurry
    with torch.no_grad():
        assert torch.equal(network(blurry, voxels), network._restore(blurry, voxels))


def test_padding_is_the_reflected_clip_cropped(tiny: Tiny) -> None:
    torch.manual_seed(0)
    network = _disturb(build_network(tiny(), num_bins=5)).eval()
    blurry, voxels = _clip(1, 2, 12, 22, scale=2)
    wide = nn.functional.pad(blurry[0], (0, 2, 0, 4), mode="reflect")[None]
    wide_voxels = nn.functional.pad(voxels[0], (0, 1, 0, 2), mode="reflect")[None]
    with torch.no_grad():
        torch.testing.assert_close(network(blurry, voxels), network(wide, wide_voxels)[..., :12, :22])


def test_pads_by_reflection_back_and_forth_and_the_last_frame() -> None:
    clip = torch.arange(6.0).view(1, 2, 1, 1, 3)
    out = pad_clip(clip, (3, 2, 8))
    assert out.shape == (1, 3, 1, 2, 8)
    assert out[0, 0, 0, 1].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert torch.equal(out[0, 2], out[0, 1])


def test_computes_in_the_precision_of_its_weights(tiny: Tiny) -> None:
    blurry, voxels = _clip(1, 2, 16, 16)
    network = build_network(tiny(flow="spynet"), num_bins=5).eval()
    with torch.no_grad():
        single = network(blurry, voxels)
        double = network.double()(blurry.double(), voxels.double())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_trains_under_bfloat16_autocast(tiny: Tiny) -> None:
    torch.manual_seed(0)
    network = _disturb(build_network(tiny(flow="spynet", drop_path_rate=0.0), num_bins=5))
    blurry, voxels = _clip(1, 3, 40, 40, scale=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(blurry, voxels)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        assert (out - network(blurry, voxels)).abs().max() < 0.2


def test_recomputing_stages_changes_no_gradient(tiny: Tiny) -> None:
    blurry, voxels = _clip(1, 2, 16, 16)
    grads = []
    for stages in ((), tuple(range(1, 9))):
        torch.manual_seed(0)
        network = build_network(tiny(checkpoint_stages=stages, drop_path_rate=0.5), num_bins=5)
        torch.manual_seed(1)
        network(blurry, voxels).square().mean().backward()
        grads.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_stochastic_depth_rises_over_the_blocks_and_acts_only_in_training(tiny: Tiny) -> None:
    torch.manual_seed(0)
    network = _disturb(build_network(tiny(drop_path_rate=0.5, fusion="none"), num_bins=0))
    rates = [network.stage8[2].residual_group.blocks[0].drop_path.rate]
    rates += [network.stage1.residual_group1.blocks[0].drop_path.rate]
    rates += [network.stage7.residual_group2.blocks[0].drop_path.rate]
    assert rates == pytest.approx([0.5, 0.0, 0.5 * 12 / 15])
    blurry, _ = _clip(1, 2, 16, 16)
    with torch.no_grad():
        assert not torch.equal(network(blurry), network(blurry))
        network.eval()
        assert torch.equal(network(blurry), network(blurry))


def test_without_flow_there_is_no_spynet(tiny: Tiny) -> None:
    names = build_network(tiny(), num_bins=5).state_dict()
    assert not any(name.startswith("spynet") for name in names)


@pytest.mark.parametrize(
    ("blurry", "voxels", "message"),
    [
        ((1, 2, 4, 16, 16), (1, 2, 5, 16, 16), "blurry"),
        ((2, 3, 16, 16), (1, 2, 5, 16, 16), "blurry"),
        ((1, 2, 3, 16, 16), (1, 2, 6, 16, 16), "5 bins"),
        ((1, 2, 3, 16, 16), (1, 3, 5, 16, 16), "voxels"),
        ((1, 2, 3, 16, 16), None, "needs voxels"),
    ],
)
def test_refuses_inputs_of_another_shape(
    blurry: tuple[int, ...], voxels: tuple[int, ...] | None, message: str, tiny: Tiny
) -> None:
    network = build_network(tiny(), num_bins=5)
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(blurry), None if voxels is None else torch.zeros(voxels))


def test_refuses_a_network_without_bins(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="num_bins 0"):
        build_network(tiny(), num_bins=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fusion", "add"),
        ("flow", "raft"),
        ("chunking", "auto"),
        ("chunk_shape", "round"),
        ("pa_frames", 3),
        ("mul_attn_ratio", 1.5),
        ("mlp_ratio", 0.0),
        ("drop_path_rate", 1.0),
        ("deformable_groups", 0),
        ("deformable_groups", 3),
        ("spike_heads", 0),
        ("spike_heads", 3),
        ("fusion_heads", 3),
        ("chunk_size", 0),
        ("max_batch_tokens", 0),
        ("window", (2, 2)),
        ("window", (2, 0, 2)),
        ("spike_strides", (1, 2)),
        ("spike_channels", (8, 8, 8)),
        ("embed_dims", (8,) * 7),
        ("embed_dims", (8, 8, 16, 8, 8, 8, 8, 8, 8)),
        ("embed_dims", (6,) * 9),
        ("embed_dims", (8,) * 8 + (12,)),
        ("depths", (2,) * 8),
        ("depths", (0,) * 9),
        ("num_heads", (3,) * 9),
        ("indep_reconsts", (3,)),
        ("checkpoint_stages", (9,)),
        ("memory_gb", 0.0),
    ],
)
def test_refuses_an_impossible_configuration(field: str, value: object, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=field):
        tiny(**{field: value})
