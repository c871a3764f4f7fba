"""The baseline of the benchmarks computes what the network computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.plain_vrt import PlainVRT, compute_mask, gathered_deform_conv2d
from model.network import NetworkConfig, build_network

Tiny = Callable[..., NetworkConfig]
SIZE = (1, 4, 3, 40, 48)


@pytest.fixture(autouse=True)
def _one_shape_at_a_time() -> None:
    compute_mask.cache_clear()


class _DifferenceFlows(nn.Module):
    """Stands in for SpyNet, which is slow in float64: flows of some pixels made of how the frames differ."""

    def forward(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
        difference = 5.0 * (supporting - reference)[:, :2]
        return [nn.functional.avg_pool2d(difference, s) for s in (1, 2, 4, 8)]


def _both(config: NetworkConfig, recompute: str = "default") -> tuple[PlainVRT, nn.Module]:
    """The plain network and ours with the same weights, none of them zero, in float64; flows are a few pixels."""
    torch.manual_seed(0)
    ours = build_network(config, num_bins=0).double().eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if name.startswith("spynet") else 0.05))
    plain = PlainVRT(config, recompute).double().eval()
    plain.load_state_dict(ours.state_dict(), strict=True)
    return plain, ours


def _run(network: nn.Module, clip: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the gradients of its mean square."""
    clip = clip.clone().requires_grad_()
    out = network(clip)
    out.square().mean().backward()
    grads = {name: parameter.grad for name, parameter in network.named_parameters()}
    return out.detach(), grads | {"input": clip.grad}


def _assert_close(got: dict[str, Tensor], want: dict[str, Tensor], share: float) -> None:
    """Each within `share` of the largest entry."""
    assert got.keys() == want.keys()
    for name, x in want.items():
        error = (got[name] - x).abs().max().item()
        assert error <= share * x.abs().max().item() + 1e-14, name


@pytest.mark.parametrize(
    ("pa_frames", "window", "frames"),
    [(2, (6, 5, 5), 2), (4, (3, 4, 4), 4), (6, (2, 5, 3), 4)],
)
def test_computes_what_the_network_computes(
    pa_frames: int, window: tuple[int, int, int], frames: int, tiny: Tiny
) -> None:
    width = 12 if pa_frames == 6 else 16
    config = tiny(
        flow="spynet",
        fusion="none",
        window=window,
        pa_frames=pa_frames,
        embed_dims=(width,) * 9,
        deformable_groups=12 if pa_frames == 6 else 4,
    )
    plain, ours = _both(config)
    if pa_frames > 2:
        plain.spynet = ours.spynet = _DifferenceFlows()
    clip = torch.rand(1, frames, 3, 40, 48, dtype=torch.float64)
    out, grads = _run(plain, clip)
    want, want_grads = _run(ours, clip)
    torch.testing.assert_close(out, want, atol=1e-11, rtol=0)
    assert (out - clip).abs().max() > 1e-2
    _assert_close(grads, want_grads, 1e-8)


def test_weights_go_both_ways(tiny: Tiny) -> None:
    plain, ours = _both(tiny(flow="spynet", fusion="none"))
    ours.load_state_dict(plain.state_dict(), strict=True)


def test_has_the_names_and_shapes_of_published_checkpoints(
    official_config: NetworkConfig, golden_folder: Path
) -> None:
    listing = json.loads((golden_folder / "vrt" / "official_keys_deblur.json").read_text())
    with torch.device("meta"):
        state = PlainVRT(official_config).state_dict()
    assert {name: list(x.shape) for name, x in state.items()} == {
        key: x[0] for key, x in listing["keys"].items()
    }


@pytest.mark.slow  # ours is compared with the published one elsewhere, and this one with ours above
def test_matches_the_published_network(golden: Any) -> None:
    plain = PlainVRT(golden.config, "lists").double().eval()
    plain.load_state_dict(golden.state, strict=True)
    clip = golden.tensors["input"].double().requires_grad_()
    out = plain(clip)
    loss = ((out - golden.tensors["target"].double()).square() + 1e-6).sqrt().mean()
    loss.backward()
    assert (out - golden.tensors["output"]).abs().max() < 1e-9
    assert abs(loss.item() - golden.tensors["loss"].item()) < 1e-10
    grads = {name: p.grad for name, p in plain.named_parameters()} | {"input": clip.grad}
    for name, want in golden.tensors.items():
        if name.startswith("grad."):
            got = grads[name.removeprefix("grad.")]
            assert (got - want).abs().max() < 2e-6 * want.abs().max(), name
    for name, norm in golden.grad_norms.items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-8), name


@pytest.mark.parametrize("recompute", ["never", "lists", "all"])
def test_recomputing_changes_no_gradient(recompute: str, tiny: Tiny) -> None:
    config = tiny(flow="spynet", fusion="none")
    clip = torch.rand(SIZE)
    grads = []
    for setting in ("default", recompute):
        torch.manual_seed(1)
        network = PlainVRT(config, setting)
        network.spynet = _DifferenceFlows()
        grads.append(_run(network, clip)[1])
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], x) for name, x in grads[1].items())


def test_recomputing_saves_memory_as_published(tiny: Tiny) -> None:
    config = tiny(flow="spynet", fusion="none", depths=(4,) * 7 + (1, 1), window=(4, 4, 4))
    clip = torch.rand(SIZE)
    kept = []
    for recompute in ("never", "default", "lists", "all"):
        network = PlainVRT(config, recompute)
        network.spynet = _DifferenceFlows()
        sizes: dict[int, int] = {}

        def note(x: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            storage = x.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            out = network(clip)
        kept.append(sum(sizes.values()))
        del out
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 4


def test_masks_are_made_once_per_shape(tiny: Tiny) -> None:
    network = PlainVRT(tiny(flow="spynet", fusion="none"))
    network.spynet = _DifferenceFlows()
    clip = torch.rand(SIZE)
    with torch.no_grad():
        network(clip)
        made = compute_mask.cache_info().misses
        network(clip)
    assert made > 0
    assert compute_mask.cache_info().misses == made


def test_a_shifted_video_of_two_windows_has_the_masks_of_hand() -> None:
    """Four columns rolled by one, in windows of two: 1 2 | 3 0. Only the last window holds what never met."""
    mask = compute_mask(1, 1, 4, (1, 1, 2), (0, 0, 1), torch.device("cpu"))
    assert mask.tolist() == [[[0.0, 0.0], [0.0, 0.0]], [[0.0, -100.0], [-100.0, 0.0]]]


@pytest.mark.parametrize("case", ["basic_3x3", "vrt_like_g1_og16", "vrt_like_g2_og8", "outside_image"])
def test_the_gather_matches_the_published_operator(case: str, golden_folder: Path) -> None:
    with safe_open(golden_folder / "deform_conv" / f"{case}.safetensors", framework="pt") as file:
        golden = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118
    inputs = {name: golden[name].requires_grad_() for name in ("input", "offset", "weight", "bias", "mask")}
    out = gathered_deform_conv2d(*inputs.values())
    out.backward(golden["grad_output"])
    torch.testing.assert_close(out, golden["output"], atol=1e-9, rtol=0)
    for name, x in inputs.items():
        torch.testing.assert_close(x.grad, golden[f"grad_{name}"], atol=1e-9, rtol=0)
