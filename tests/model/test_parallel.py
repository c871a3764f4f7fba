import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model.parallel import Parallel, ParallelConfig, parallel
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from model.training.learner import Learner
from model.losses import CombinedLoss, LossConfig
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.training.optim import OptimConfig
from model.parallel import ParallelConfig, parallel
from pipeline.clips import Sample


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rgb, self.spynet = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.poisoned = False

    def forward(self, blurry, voxels):
        x = self.rgb(blurry.flatten(0, 1)) + self.spynet(blurry.flatten(0, 1))
        x = x + voxels.mean((2, 3, 4)).view(-1, 1, 1, 1)
        return blurry + x.unflatten(0, blurry.shape[:2]) * (float("nan") if self.poisoned else 1.0)


torch.set_num_threads(1)
torch.manual_seed(0)
with parallel(ParallelConfig(device="cpu")) as place:
    config = OptimConfig(lr=1e-2, warmup_steps=0, flow_freeze_steps=2, accumulate=2)
    normalizer = VoxelNormalizer(np.resize(np.linspace(0, 1, 256, dtype=np.float32), NUM_COUNTS))
    learner = Learner(
        Net(), CombinedLoss(LossConfig(perceptual_weight=0.0)), normalizer, config, place, steps=6, seed=0
    )
    generator = torch.Generator().manual_seed(1)
    stops, losses = [], []
    for step in range(6):
        whole = torch.randint(0, 256, (4, 2, 3, 8, 8), dtype=torch.uint8, generator=generator)
        each = 2 // place.world  # clips a process takes at once
        mine = [whole[2 * i + place.rank * each :][:each] for i in range(2)]
        learner.network.poisoned = step == 4 and place.rank == place.world - 1
        assert place.any(place.rank == place.world - 1) and not place.any(False)
        result = learner.step(
            step, [Sample(x, x, x.flip(-1)) for x in mine], lambda: step == 3 and place.rank == 0
        )
        stops.append(result.stop)
        losses.append(result.loss)
        assert result.applied == (step != 4), (place.rank, step, result)
    assert stops == [False, False, False, True, False, False], (place.rank, stops)
    state = learner.tensors()
    state = state | {"losses": torch.tensor([loss for i, loss in enumerate(losses) if i != 4])}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, f"{sys.argv[1]}.{place.rank}")
"""


def start(script: Path, out: Path, rank: int, world: int, port: int) -> subprocess.Popen[bytes]:
    where = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment = os.environ | {name: str(value) for name, value in where.items()} | paths
    return subprocess.Popen([sys.executable, str(script), str(out)], env=environment, stderr=subprocess.PIPE)


def test_two_processes_with_one_clip_each_learn_what_one_process_learns_from_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    port = 20000 + os.getpid() % 20000
    workers = [start(script, tmp_path / "two", rank, 2, port) for rank in range(2)]
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "one")])
    try:
        runpy.run_path(str(script))
    finally:
        torch.set_num_threads(threads)
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
    first, second, alone = (load_file(tmp_path / name) for name in ("two.0", "two.1", "one.0"))
    assert first.keys() == alone.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-6, msg=name)


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


@pytest.mark.parametrize("values", [{"device": "tpu"}, {"precision": "fp8"}])
def test_refuses_what_it_does_not_know(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values.values()))):
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
