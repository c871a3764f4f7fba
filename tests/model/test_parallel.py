from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.losses import CombinedLoss, LossConfig, LossTerms
from model.network import NetworkConfig, build_network
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.parallel import Parallel, ParallelConfig, parallel
from model.training.learner import Learner
from model.training.optim import OptimConfig
from pipeline.clips import Sample
from pipeline.errors import ConfigError
from tests.ranks import ranks


class Net(nn.Module):
    """Small, with what is hard to split: one row for two processes, a constant, dropout, flow layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.spynet = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.gain = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.register_buffer("a_half", torch.tensor(0.5))
        self.spynet.bias.requires_grad_(False)

    def parts(self) -> dict[str, nn.Module]:
        return {"spynet": self.spynet}

    def forward(self, blurry: Tensor, voxels: Tensor) -> Tensor:
        x = self.rgb(blurry.flatten(0, 1)) + self.spynet(blurry.flatten(0, 1))
        x = 2 * self.a_half * self.gain * F.dropout(x, 0.25)
        x = x + voxels.mean((2, 3, 4)).view(-1, 1, 1, 1)
        return blurry + x.unflatten(0, blurry.shape[:2])


class Loss(CombinedLoss):
    poisoned = False

    def forward(self, restored: Tensor, sharp: Tensor) -> LossTerms:
        return super().forward(restored * (float("nan") if self.poisoned else 1.0), sharp)


VRT = NetworkConfig(
    embed_dims=(4,) * 8,
    depths=(1,) * 8,
    num_heads=(1,) * 8,
    window=(2, 2, 2),
    indep_reconsts=(),
    deformable_groups=1,
    drop_path_rate=0.5,
    spike_channels=(4,) * 4,
    spike_heads=1,
    fusion_heads=1,
    flow="none",
    checkpoint_stages=(2, 8),
)


def learn(place: Parallel, network: Callable[[], nn.Module], out: Path) -> None:
    micros = 4 // place.world
    config = OptimConfig(
        lr=1e-3, warmup_steps=0, clip_norm=0.05, flow_freeze_steps=1, accumulate=micros, ema_decay=0.9
    )
    normalizer = VoxelNormalizer(np.resize(np.linspace(0, 1, 256, dtype=np.float32), NUM_COUNTS))

    def make() -> Learner:
        torch.manual_seed(0)
        loss = Loss(LossConfig(perceptual_weight=0.0))
        return Learner(network(), loss, normalizer, config, place, steps=4, seed=0)

    learner = make()
    generator = torch.Generator().manual_seed(1)
    stops, losses = [], []
    for step in range(4):
        whole = torch.randint(0, 256, (4, 2, 3, 8, 8), dtype=torch.uint8, generator=generator)
        mine = [whole[i * place.world + place.rank][None] for i in range(micros)]
        learner.loss.poisoned = step == 2 and place.rank == place.world - 1
        assert place.any(place.rank == place.world - 1) and not place.any(False)
        result = learner.step(
            step, [Sample(x, x, x.flip(-1)) for x in mine], lambda step=step: step == 0 and place.rank == 0
        )
        stops.append(result.stop)
        losses.append(result.loss)
        assert result.applied == (step != 2), (place.rank, step, result)
        if step == 1:  # go on in another one, from what the main process has
            tensors, plain = place.gather((learner.tensors(), learner.plain()))[0]
            learner = make()
            learner.load(tensors, plain)
    assert stops == [True, False, False, False], (place.rank, stops)
    best = learner.best_network
    if place.is_main:  # without the others
        restored = learner.restore(best, Sample(*[whole[:1]] * 3))
        assert restored.isfinite().all() and restored.std() > 0
    state = learner.tensors()
    state = state | {"losses": torch.tensor([loss for i, loss in enumerate(losses) if i != 2])}
    state |= {f"best.{name}": value for name, value in best.state_dict().items()}
    save_file(
        {name: tensor.clone() for name, tensor in state.items()}, out.with_name(f"{out.name}.{place.rank}")
    )


def learn_all(out: Path, *strategies: str) -> None:
    with parallel(ParallelConfig(device="cpu")) as place:
        for strategy in strategies:
            for name, network in (("net", Net), ("vrt", lambda: build_network(VRT, 3))):
                learn(replace(place, strategy=strategy), network, out / f"{strategy}.{name}")


def test_two_processes_learn_what_one_process_learns_from_the_same_clips(tmp_path: Path) -> None:
    """With whole weights and with split ones, through a frozen phase, NaN in one process, and a new start."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with ranks(tmp_path, learn_all, tmp_path / "two", "ddp", "fsdp") as workers:
        learn_all(tmp_path / "one", "ddp")
        assert workers.wait() == [0, 0], (workers.said(0), workers.said(1))
    for name in ("net", "vrt"):
        alone, first, second, split, other = (
            load_file(tmp_path / f"{path}")
            for path in (
                f"one/ddp.{name}.0",
                *(f"two/{strategy}.{name}.{rank}" for strategy in ("ddp", "fsdp") for rank in range(2)),
            )
        )
        assert alone.keys() == first.keys() == second.keys() == split.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), key
            torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=1e-6, msg=key)
            torch.testing.assert_close(split[key], value, rtol=1e-4, atol=1e-6, msg=key)
        assert not [key for key in other if key.startswith(("model.", "ema.", "optimizer.exp"))]
        assert all(torch.equal(value, split[key]) for key, value in other.items())


def test_takes_the_cpu_when_told_and_leaves_no_process_group() -> None:
    with parallel(ParallelConfig(device="cpu")) as place:
        assert place == Parallel(device=torch.device("cpu"))
        assert place.is_main and place.sum(torch.ones(2)).tolist() == [1, 1]
        assert place.peak_memory_bytes() > 1 << 20
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_says_when_there_is_no_cuda_device() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"), parallel(ParallelConfig(device="cuda")):
        pass


def test_autocast_follows_the_precision() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        place = Parallel(device=torch.device("cpu"), precision=precision)
        with place.autocast():
            assert layer(x).dtype == dtype
        assert place.scaler().is_enabled() == (precision == "fp16")


@pytest.mark.parametrize(
    "values", [{"device": "tpu"}, {"precision": "fp8"}, {"strategy": "zero3"}, {"timeout_s": 0.5}]
)
def test_refuses_what_it_does_not_know(values: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(values.values())))):
        ParallelConfig(**values)


def test_compiles_what_is_trained_and_nothing_else() -> None:
    compiled: list[int] = []

    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            compiled.append(torch.compiler.is_compiling())
            return super().forward(x) * 2

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Doubled(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x)

        def compile(self, **options: object) -> None:
            self.part.compile(backend="eager", **options)

    network, x = Network(), torch.ones(1, 2)
    place = Parallel(device=torch.device("cpu"), compile=True)
    forward = place.wrap(network)
    with place.eager():
        want = forward(x)
    assert compiled == [False]
    assert torch.equal(forward(x), want) and compiled == [False, True]
    assert torch._dynamo.config.recompile_limit >= 64
    assert list(network.state_dict()) == ["part.weight", "part.bias"]
