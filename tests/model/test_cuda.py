"""What only shows on a CUDA device: the golden vectors there, one wait per step, NCCL, memory, the commands.

Without a device these are skipped; those that also mean something on a CPU, and are cheap, run there as well.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from model.losses import CombinedLoss, LossConfig
from model.network import NetworkConfig, SpikeVRT, build_network
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.parallel import Parallel, ParallelConfig, parallel
from model.peers import GRACE_S
from model.training import memory
from model.training.learner import Learner
from model.training.optim import OptimConfig
from model.training.signals import StopRequest
from model.training.trainer import Schedule, Trainer
from pipeline.clips import Sample
from pipeline.errors import ConfigError, TrainingError
from tests.model.test_network import (  # the tests run here too, on what the fixture `run` of this file gives
    GoldenRun,
    run_golden,
    test_fusion_sits_after_the_first_four_stages_and_in_the_skips,  # noqa: F401
    test_gradient_norms_match_the_published_network,  # noqa: F401
    test_gradients_match_the_published_network,  # noqa: F401
    test_output_and_loss_match_the_published_network,  # noqa: F401
    test_stages_and_flows_match_the_published_network,  # noqa: F401
)
from tests.model.training.test_learner import Net, assert_equal, state_of
from tests.ranks import ranks

ROOT = Path(__file__).parents[2]
STEPS = 6
NUM_BINS = 4

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
on_cuda = pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_cuda)])
on_both = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
MakeLearner = Callable[..., Learner]


@pytest.fixture(scope="module", autouse=True)
def exact_convolutions() -> Iterator[None]:
    """Keep cuDNN from rounding float32 to TF32 and from choosing algorithms by their speed."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        yield


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(torch.float64, marks=needs_cuda, id="float64"),
        pytest.param(torch.float32, marks=needs_cuda, id="float32"),
    ],
)
def run(request: pytest.FixtureRequest, golden: Any) -> GoldenRun:
    return run_golden(golden, request.param, "cuda")


@pytest.fixture
def make(tiny: Callable[..., NetworkConfig]) -> MakeLearner:
    """A learner of a small fused network; the same weights on every device."""

    def make(device: str, precision: str = "fp32", **changes: Any) -> Learner:
        torch.manual_seed(0)
        network = _stir(build_network(tiny(**{"drop_path_rate": 0.0} | changes), NUM_BINS))
        index = {"index": 0} if device == "cuda" else {}
        place = Parallel(device=torch.device(device, **index), precision=precision)
        table = np.resize(np.linspace(-1, 3, 256, dtype=np.float32), NUM_COUNTS)
        return Learner(
            network.to(place.device),
            CombinedLoss(LossConfig(perceptual_weight=0.0)),
            VoxelNormalizer(table).to(place.device),
            OptimConfig(lr=1e-4, warmup_steps=0, ema_decay=0.9),
            place,
            steps=STEPS,
            seed=0,
        )

    return make


def _stir(network: SpikeVRT) -> SpikeVRT:
    """Give weights that start at zero a value, so that every part counts."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return network


def _clip(step: int, side: int = 24, counts: torch.dtype = torch.uint8) -> Sample:
    generator = torch.Generator().manual_seed(step)

    def draw(*shape: int) -> Tensor:
        return torch.randint(0, 256, (1, 3, *shape), dtype=torch.uint8, generator=generator)

    return Sample(draw(3, side, side), draw(NUM_BINS, side // 2, side // 2).to(counts), draw(3, side, side))


@on_both
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 1e-2)])
def test_a_step_has_the_loss_and_gradient_of_the_reference(
    device: str, precision: str, limit: float, make: MakeLearner
) -> None:
    want = make("cpu", flow="spynet").step(0, [_clip(0)])
    learner = make(device, precision, flow="spynet")
    before = state_of(learner)
    for attempt in range(20):  # the scale of fp16 may begin too high
        got = learner.step(0, [_clip(0)])
        assert got.loss == pytest.approx(want.loss, rel=limit)
        if got.applied:
            break
        assert got.overflow, attempt
        assert_equal(state_of(learner), before)
    assert got.applied
    assert got.grad_norm == pytest.approx(want.grad_norm, rel=10 * limit)
    after = state_of(learner)
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["model.conv_first.weight"], before["model.conv_first.weight"])


@on_both
def test_counts_of_16_bits_are_taken_too(device: str, make: MakeLearner) -> None:
    small, wide = (make(device).step(0, [_clip(0, counts=kind)]) for kind in (torch.uint8, torch.uint16))
    assert wide.loss == pytest.approx(small.loss, rel=1e-5)


@on_both
def test_a_gradient_that_is_not_finite_changes_nothing(device: str, make: MakeLearner) -> None:
    learner = make(device)
    learner.step(0, [_clip(0)])
    before = state_of(learner)
    handle = learner.network.conv_first.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert not learner.step(1, [_clip(1)]).applied
    assert_equal(state_of(learner), before)
    handle.remove()
    assert learner.step(2, [_clip(2)]).applied


@contextlib.contextmanager
def _waits() -> Iterator[list[str]]:
    """Collects where the host waits for the device, as lines of this repository."""
    places: list[str] = []

    def note(message: Warning | str, *_: object) -> None:
        if "synchronizing CUDA operation" in str(message):
            ours = [frame for frame in traceback.extract_stack() if frame.filename.startswith(str(ROOT))]
            own = [frame for frame in ours if frame.filename != __file__]
            places.append(" < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in own[:-4:-1]))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # put back by catch_warnings
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")


@on_cuda
@pytest.mark.parametrize("changes", [{}, {"checkpoint_stages": (1, 4, 8), "drop_path_rate": 0.2}])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_waits_for_the_device_once_and_last(
    device: str, precision: str, changes: dict[str, Any], make: MakeLearner
) -> None:
    learner = make(device, precision, flow="spynet", window=(2, 8, 8), **changes)
    clips = [_clip(number, side=64) for number in range(5)]
    learner.step(0, clips[:1])
    learner.step(1, clips[1:3])
    with _waits() as places:
        learner.optimizer.register_step_post_hook(lambda *_: places.append("update queued"))
        learner.step(2, clips[3:])
    assert places[0] == "update queued", places
    assert len(places) == 2 and places[1].startswith("learner.py"), places


@on_cuda
def test_a_wait_is_noticed(device: str) -> None:
    with _waits() as places:
        torch.ones(1, device=device).item()
    assert len(places) == 1


@on_both
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_going_on_is_bit_for_bit_where_every_operation_is_deterministic(
    device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions, dropout, the optimizer, the scaler and the average are."""

    def make() -> Learner:
        torch.manual_seed(3)
        place = Parallel(device=torch.device(device), precision=precision)
        return Learner(
            Net(drop=0.3).to(device),
            CombinedLoss(LossConfig(perceptual_weight=0.0)),
            VoxelNormalizer(np.resize(np.linspace(-1, 3, 256, dtype=np.float32), NUM_COUNTS)).to(device),
            OptimConfig(lr=1e-2, warmup_steps=2, ema_decay=0.9, flow_freeze_steps=2),
            place,
            steps=STEPS,
            seed=7,
        )

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True)
    try:
        whole, first, second = make(), make(), make()
        losses = [whole.step(step, [_clip(step, 8)]).loss for step in range(STEPS)]
        for step in range(3):
            first.step(step, [_clip(step, 8)])
        second.load({name: x.cpu() for name, x in state_of(first).items()}, first.plain())
        assert [second.step(step, [_clip(step, 8)]).loss for step in range(3, STEPS)] == losses[3:]
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(state_of(second), state_of(whole))
    assert second.plain() == whole.plain()


@on_both
def test_going_on_repeats_the_losses_of_the_uninterrupted_run(device: str, make: MakeLearner) -> None:
    """Not bit for bit: gradients of sampling (bilinear, deformable) are added up in any order on CUDA."""
    whole, first, second = (make(device, drop_path_rate=0.2) for _ in range(3))
    losses = [whole.step(step, [_clip(step)]).loss for step in range(STEPS)]
    for step in range(3):
        first.step(step, [_clip(step)])
    torch.manual_seed(99)  # whatever happened in between
    second.load({name: x.cpu() for name, x in state_of(first).items()}, first.plain())
    again = [second.step(step, [_clip(step)]).loss for step in range(3, STEPS)]
    assert again == pytest.approx(losses[3:], rel=1e-3)


@on_both
def test_recomputing_stages_changes_no_gradient(device: str, make: MakeLearner) -> None:
    grads = []
    for stages in ((), tuple(range(1, 9))):
        learner = make(device, checkpoint_stages=stages, drop_path_rate=0.5)
        blurry, voxels = learner._inputs(learner._to_device(_clip(0)))
        torch.manual_seed(1)
        learner.network.train()(blurry, voxels).square().mean().backward()
        grads.append({name: p.grad for name, p in learner.network.named_parameters()})
    largest = max(grad.abs().max() for grad in grads[0].values())
    for name, grad in grads[0].items():
        assert (grads[1][name] - grad).abs().max() < 1e-4 * largest, name


@on_cuda
@pytest.mark.parametrize("stage", [1, 3, 5])
def test_a_compiled_stage_computes_what_it_computes_without(
    device: str, stage: int, make: MakeLearner
) -> None:
    learner = make(device, flow="spynet")
    inputs = learner._inputs(learner._to_device(_clip(0)))
    results = []
    for compiled in (False, True):
        if compiled:
            getattr(learner.network, f"stage{stage}").compile(fullgraph=True)
        learner.network.zero_grad()
        out = learner.network(*inputs)
        out.square().mean().backward()
        results.append((out.detach(), [p.grad.clone() for p in learner.network.parameters()]))
    (out, grads), (compiled_out, compiled_grads) = results
    torch.testing.assert_close(compiled_out, out, atol=1e-4, rtol=0)
    largest = max(grad.abs().max() for grad in grads)
    assert all((a - b).abs().max() < 1e-3 * largest for a, b in zip(grads, compiled_grads, strict=True))


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[torch.device], None]]:
    """Starts a process group of this process alone."""
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")

    def start(device: torch.device) -> None:
        bound = {"device_id": device} if device.type == "cuda" else {}
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1, **bound
        )

    yield start
    if dist.is_initialized():
        dist.destroy_process_group()


@on_both
def test_processes_agree_over_the_device_and_still_wait_once(
    device: str, make: MakeLearner, group: Callable[[torch.device], None]
) -> None:
    """One process that takes itself for one of two: it adds up half a loss, and averages with nobody."""
    alone, shared = make(device), make(device)
    group(shared.place.device)
    shared.place = dataclasses.replace(shared.place, world=2)
    for step in range(3):
        batches = [_clip(step), _clip(10 + step)]
        watched = _waits() if device == "cuda" and step == 2 else contextlib.nullcontext([""])
        with watched as places:
            got = shared.step(step, batches, lambda step=step: step == 1)
        want = alone.step(step, batches)
        assert got.loss == pytest.approx(want.loss / 2, rel=1e-3)
        assert got.grad_norm == pytest.approx(want.grad_norm, rel=1e-2)
        assert got.applied and got.stop == (step == 1)
        assert len(places) == 1, places
    shared.place.sum(torch.zeros(1, device=shared.place.device))


@on_cuda
def test_takes_a_device_of_its_own_and_says_when_there_are_too_few(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("auto", "cuda"):
        with parallel(ParallelConfig(device=name)) as place:
            assert place.device == torch.device(device, 0) and place.is_main
            before = torch.cuda.memory_allocated()
            held = torch.empty(32 << 20, dtype=torch.uint8, device=place.device)
            assert place.peak_memory_bytes() >= before + held.nbytes
            assert place.gather(1) == [1]
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    message = f"there are {torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=message), parallel(ParallelConfig(device="cuda")):
        pass


@on_cuda
def test_a_step_that_does_not_fit_says_what_to_change_and_leaves_the_memory(
    device: str, make: MakeLearner
) -> None:
    learner = make(device)
    trainer = Trainer(learner, Schedule(steps=1), save=lambda milestone: None)
    learner.step(0, [_clip(0)])
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + (256 << 20)
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(TrainingError, match="out of memory on cuda:0 in step 1") as caught:
            trainer.fit(iter([_clip(0, side=1024)]), StopRequest())
        assert "clip.crop" in caught.value.fix
        del caught
        _, shortage = memory.attempt(lambda: learner.step(0, [_clip(0, side=1024)]), learner.place)
        assert shortage and shortage.use and shortage.problem.startswith("Tried to allocate")
        assert 0 < shortage.use.allocated <= shortage.use.reserved < shortage.use.total
        assert shortage.use.elsewhere + shortage.use.reserved + shortage.use.free <= shortage.use.total
        learner.optimizer.zero_grad(set_to_none=True)
        assert math.isfinite(learner.step(0, [_clip(0)]).loss)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def store(tmp_path: Path, small_scenes: list[str], spk: Callable[..., Any]) -> Path:
    """A small store with voxel grids."""
    raw, store = tmp_path / "raw", tmp_path / "store"
    for words in (
        ("simulate", "scenes", "-o", raw, *small_scenes, "--workers", 1),
        ("ingest", raw, "-o", store, "--manifest", "simulated"),
        ("voxelize", store, "--bins", 8),
    ):
        ran = spk(*words)
        assert ran.code == 0, ran.err
    return store


@on_cuda
def test_recordings_become_a_report_on_the_device(
    device: str, store: Path, tmp_path: Path, small_training: list[str]
) -> None:
    out = tmp_path / "run"
    where = [f"parallel.device={device}", "parallel.precision=bf16"]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m"]
    settings = [*small_training, *where, f"store={store}", "-o", out, "--json"]
    first = _python("-m", *launcher, "cli", "train", "tiny", *settings, "network.flow=spynet")
    assert first["step"] == 4 and first["val_psnr"] > 5
    second = _python("-m", "cli", "train", out / "config.yaml", "steps=6", "-o", out, "--json", "--resume")
    assert second["step"] == 6

    scores = _python("-m", "cli", "evaluate", out, f"parallel.device={device}", "--json")
    assert scores["protocols"]["rgb8-all"]["psnr"] > 5
    named = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == set(range(1, 7))
    assert named in (out / "run.json").read_text()


needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices")


@needs_two
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("settings", [[], ["network.checkpoint_stages=[1,8]", "parallel.compile=true"]])
def test_two_devices_train_and_one_goes_on(
    store: Path, small_training: list[str], tmp_path: Path, strategy: str, settings: list[str]
) -> None:
    run = tmp_path / "run"
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0", "-m"]
    where = ["parallel.device=cuda", "parallel.precision=bf16", f"parallel.strategy={strategy}", *settings]
    words = [*small_training, *where, "network.flow=spynet", "optim.flow_freeze_steps=2", f"store={store}"]
    first = _python("-m", *launcher, "cli", "train", "tiny", *words, "-o", run, "--json")
    assert first["step"] == 4 and first["val_psnr"] > 5
    second = _python(
        *("-m", "cli", "train", run / "config.yaml", "-o", run, "--resume", "--json"),
        *("steps=6", "optim.accumulate=2"),
    )
    assert second["step"] == 6


def wait_on_the_device_for_a_lost_one() -> None:
    with parallel(ParallelConfig(device="cuda")) as place:
        place.sum(torch.ones(1, device=place.device))
        if place.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        place.sum(torch.ones(1, device=place.device)).item()


@needs_two
def test_a_device_that_waits_for_a_lost_process_is_left(tmp_path: Path) -> None:
    with ranks(tmp_path, wait_on_the_device_for_a_lost_one) as processes:
        assert processes.wait(2 * GRACE_S + 60) == [1, -signal.SIGKILL]
    assert "process 1 of the run" in processes.said(0)


def _python(*words: object) -> dict[str, Any]:
    """What a command of this repository prints."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
