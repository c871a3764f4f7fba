import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model.cost import (
    STAGES,
    Activations,
    ClipSize,
    Flops,
    Piece,
    choose_stages,
    count_flops,
    effect_of,
    measure_activations,
    plan_recomputation,
)
from model.network import NetworkConfig, build_network
from model.parallel import Parallel
from pipeline.errors import ConfigError

Tiny = Callable[..., NetworkConfig]
CPU = Parallel(device=torch.device("cpu"))
CLIP = ClipSize(batch=1, frames=2, crop=32, num_bins=3)


def test_counts_the_published_network_part_by_part() -> None:
    """At 6x192x192, in TFLOP, against a count by operators of the published network, to the last digit of that."""
    config = NetworkConfig(fusion="none")
    flops = count_flops(config, ClipSize(batch=1, frames=6, crop=192, num_bins=0))

    def total(*suffixes: str) -> float:
        return sum(count for name, count in flops.forward.items() if name.endswith(suffixes)) / 1e12

    assert flops.of("") / 1e12 == pytest.approx(5.02, abs=0.005)
    assert total(".conv_offset") == pytest.approx(1.376, abs=0.001)
    assert total(".mlp") == pytest.approx(1.128, abs=0.001)
    assert total(".attn") == pytest.approx(1.011 + 0.811, abs=0.001)
    assert total("spynet") == pytest.approx(0.236, abs=0.001)
    assert total(".pa_fuse") == pytest.approx(0.226, abs=0.001)
    assert total(".pa_deform") - total(".conv_offset") == pytest.approx(0.162, abs=0.001)
    assert 3.0 < flops.step / flops.of("") < 3.2  # twice for backward, and scores of attention are made again


def test_counts_the_wider_clip_of_a_narrower_network() -> None:
    config = NetworkConfig(fusion="none", embed_dims=(96,) * 11)
    flops = count_flops(config, ClipSize(batch=1, frames=5, crop=256, num_bins=0), backward=False)
    assert flops.of("") / 1e12 == pytest.approx(6.79, abs=0.005)
    assert flops.step == 0


def test_counts_a_tiny_network_as_by_hand(tiny: Tiny) -> None:
    flops = count_flops(tiny(), CLIP)
    channels, tokens = 8, 2 * 32 * 32
    taps, pairs, hidden = 9, 2 * 32 * 32, 3 * channels
    by_hand = {
        "conv_first": 2 * 27 * channels * taps * tokens,
        "stage1.linear1": 2 * channels * channels * tokens,
        "stage2.reshape": 2 * 4 * channels * channels * tokens // 4,
        "stage1.pa_fuse": 2 * (2 * hidden * hidden + hidden * channels) * tokens,
        "stage1.pa_deform.conv_offset": 2
        * taps
        * channels
        * (2 * channels + 2 + 2 * channels + 27 * 2)
        * pairs,
        "conv_last": 2 * channels * 3 * taps * tokens,
    }
    # A block: qkv, projection, scores and their use in windows of 2x2x2, MLP.
    attention = 2 * tokens * (3 * channels**2 + channels**2 + 2 * channels * 8)
    by_hand["stage1.residual_group2.blocks.0"] = attention + 2 * tokens * 3 * channels * 2 * channels
    assert {name: flops.of(name) for name in by_hand} == by_hand
    deformable = flops.of("stage1.pa_deform") - flops.of("stage1.pa_deform.conv_offset")
    assert deformable == 2 * channels * channels * taps * pairs
    assert flops.of("spynet") == 0


def test_to_be_told_instants_costs_two_channels_and_a_mean(tiny: Tiny) -> None:
    plain, told = (count_flops(tiny(instants=instants), CLIP).of("") for instants in (False, True))
    places = CLIP.frames * CLIP.crop**2
    assert told - plain == 2 * places * (2 * 4 * 27 + CLIP.num_bins)


def test_the_parts_make_up_the_network(tiny: Tiny) -> None:
    config = tiny(flow="spynet")
    flops = count_flops(config, CLIP, backward=False)
    parts = build_network(config, num_bins=3).parts()
    assert sum(flops.of(name) for name in parts) == flops.of("")
    assert [name for name in parts if flops.of(name) == 0] == ["norm"]


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "bf16")])
def test_knows_what_a_real_step_keeps(device: str, precision: str, tiny: Tiny) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = tiny(flow="spynet", drop_path_rate=0.0)
    place = Parallel(device=torch.device(device), precision=precision)
    activations = measure_activations(config, CLIP, place, Flops(forward={}, step=0))
    for stages in ((), (1,), (1, 7, 8), tuple(STAGES)):
        torch.manual_seed(0)
        network = build_network(config_with(config, stages), num_bins=3).to(device)
        clip = [x.to(device) for x in _clip(CLIP)]
        real = _Alive([*network.parameters(), *network.buffers()])
        with real:
            with place.autocast():
                out = network(*clip)
            kept = real.bytes()
        expected = activations.peak_bytes(stages)
        if not stages:
            assert 0.95 * expected < kept <= expected, (kept, expected)
        del out
        largest = max(p.saved_bytes for p in activations.pieces)  # comes back in backward
        assert kept <= expected <= kept * 1.05 + largest, (stages, kept, expected)


def test_bytes_of_single_layers_are_those_counted_by_hand(tiny: Tiny) -> None:
    activations = measure_activations(tiny(), CLIP, CPU, Flops(forward={}, step=0))
    saved, tokens = {p.name: p.saved_bytes for p in activations.pieces}, 2 * 32 * 32
    assert saved["norm"] == 2 * tokens * 4  # mean and deviation of each token; the input is stage 8's output
    assert saved["conv_after_body"] == saved["conv_first"] == 0
    assert activations.saved_bytes("conv_first") == 8 * tokens * 4  # its output
    assert activations.saved_bytes("conv_last") == 3 * tokens * 4


def test_measuring_changes_nothing(tiny: Tiny) -> None:
    """No fake tensor stays in a cache, and no random number is used up."""
    torch.manual_seed(0)
    network = build_network(tiny(), num_bins=3).eval()
    clip, state = _clip(CLIP), torch.get_rng_state()
    before = network(*clip)
    measure_activations(tiny(), CLIP, CPU, count_flops(tiny(), CLIP))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network(*clip), before)
    fresh = build_network(tiny(), num_bins=3).eval()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(*clip), before)


def test_counting_a_step_that_recomputes_gives_what_was_foretold(tiny: Tiny) -> None:
    """The recomputation stops before the last product of each piece, so a little less."""
    config = tiny(drop_path_rate=0.0)
    flops = count_flops(config, CLIP)
    activations = measure_activations(config, CLIP, CPU, flops)
    with torch.device("meta"):
        network = build_network(config_with(config, STAGES), num_bins=3)
    with FlopCounterMode(display=False) as counter:
        network(*CLIP.inputs(config, "meta")).sum().backward()
    counted = counter.get_total_flops() - flops.step
    assert 0.8 < counted / activations.recomputed_flops(STAGES) <= 1


def activations_of(*pieces: tuple[str, int, int], between: int = 0) -> Activations:
    """Pieces as (name, FLOPs, bytes)."""
    made = tuple(Piece(name=name, flops=flops, saved_bytes=size) for name, flops, size in pieces)
    return Activations(pieces=made, between_bytes={"": between})


GB = 10**9
FOUR = activations_of(
    ("spynet", 50, GB),
    ("stage1.a", 30, 6 * GB),
    ("stage2.a", 30, 5 * GB),
    ("stage3.a", 1, GB),
    ("stage8.1.a", 40, 3 * GB),
    ("stage8.1.b", 40, 3 * GB),
    between=GB,
)


def test_a_piece_that_is_recomputed_stands_beside_what_came_before_it() -> None:
    assert FOUR.peak_bytes() == 20 * GB
    assert FOUR.peak_bytes((8,)) == 17 * GB  # in the backward of 8: 14 before it, and one of its pieces
    assert FOUR.peak_bytes((1,)) == 14 * GB  # the forward keeps more than the 8 of stage 1's own backward
    assert FOUR.peak_bytes(range(1, 9)) == 8 * GB


@pytest.mark.parametrize(
    ("memory_gb", "stages"), [(20, ()), (19, (3,)), (14, (1,)), (13, (1, 3)), (9, (1, 2)), (8, (1, 2, 3))]
)
def test_takes_the_cheapest_stages_that_fit(memory_gb: float, stages: tuple[int, ...]) -> None:
    assert choose_stages(FOUR, memory_gb) == stages


def test_no_other_set_that_fits_is_cheaper() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        flops, sizes = torch.randint(1, 100, (2, 8), generator=generator).tolist()
        some = activations_of(
            *((f"stage{i}", f, s * GB) for i, f, s in zip(STAGES, flops, sizes, strict=True))
        )
        budget = 1.2 * some.peak_bytes(STAGES)
        chosen = choose_stages(some, budget / 1e9)
        assert some.peak_bytes(chosen) <= budget
        for count in range(9):
            for other in itertools.combinations(STAGES, count):
                if some.peak_bytes(other) <= budget:
                    assert some.recomputed_flops(chosen) <= some.recomputed_flops(other)


def test_stages_that_are_named_are_always_recomputed() -> None:
    assert choose_stages(FOUR, 100, always=(2,)) == (2,)
    assert choose_stages(FOUR, 9, always=(3,)) == (1, 2, 3)


def test_a_budget_that_cannot_be_met_names_the_smallest_that_can() -> None:
    with pytest.raises(ConfigError, match=r"memory_gb=7\.9: .* below 8\.0 GB") as caught:
        choose_stages(FOUR, 7.9)
    assert "network.memory_gb=8.0" in caught.value.fix
    odd = activations_of(("spynet", 1, 1_234_567_891))
    with pytest.raises(ConfigError, match=r"below 1\.235 GB"):
        choose_stages(odd, 1)
    assert choose_stages(odd, 1.235) == ()


def test_says_what_was_chosen() -> None:
    effect = effect_of(FOUR, (2, 1), forward_flops=191)
    assert str(effect) == "checkpointing stages 1, 2: 9.0 of 20.0 GB saved activations, +10 % FLOPs"
    assert str(effect_of(FOUR, (3,), 191)).startswith("checkpointing stage 3: 19.0 of 20.0 GB")
    assert str(effect_of(FOUR, (), 191)) == "checkpointing no stage: 20.0 of 20.0 GB saved activations"


def test_plans_only_with_a_budget(tiny: Tiny) -> None:
    assert plan_recomputation(tiny(), CLIP, CPU) is None
    plan = plan_recomputation(tiny(memory_gb=1.0), CLIP, CPU)
    assert plan.stages == ()
    tight = plan_recomputation(tiny(memory_gb=0.6 * plan.bytes / 1e9), CLIP, CPU)
    assert tight.stages and tight.bytes <= 0.6 * plan.bytes and 0 < tight.extra_flops < 1 / 3
    with pytest.raises(ConfigError, match="cannot be kept below"):
        plan_recomputation(tiny(memory_gb=1.0e-3), CLIP, CPU)


def config_with(config: NetworkConfig, stages: Iterable[int]) -> NetworkConfig:
    return replace(config, checkpoint_stages=tuple(stages))


def _clip(size: ClipSize) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    shape = size.batch, size.frames
    return torch.rand(*shape, 3, size.crop, size.crop), torch.randn(
        *shape, size.num_bins, size.crop, size.crop
    )


class _Alive(TorchDispatchMode):
    """Adds up the storages that are alive of those that operators made."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {StorageWeakRef(x.untyped_storage()).cdata for x in known}
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                reference = StorageWeakRef(x.untyped_storage())
                if reference.cdata not in self.known:
                    self.made.setdefault(reference.cdata, (reference, x.untyped_storage().nbytes()))
        return out

    def bytes(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())
