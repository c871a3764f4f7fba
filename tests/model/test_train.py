import json
import logging
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model.checkpoint import load_network, read_info
from model.checkpoint_file import load_tensors
from model.cost import clip_size, count_flops, measure_activations
from model.instants import INSTANT_CHANNELS
from model.lora import LoraConfig
from model.losses import LossConfig
from model.network import NetworkConfig, build_network
from model.parallel import Parallel, ParallelConfig
from model.train import TrainReport, train
from model.training.config import TrainConfig
from model.training.failed_step import read_failed_step
from model.training.learner import Learner
from model.training.optim import OptimConfig
from model.training.validation import Validator
from pipeline.clips import ClipConfig
from pipeline.config import load_config
from pipeline.errors import CheckpointError, ConfigError, StoreError, TrainingError, UsageError
from pipeline.files import PARTIAL
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.storage import mapped
from pipeline.voxelize import voxelize
from tests.model.training.test_memory_report import ACTIVATIONS

NETWORK = NetworkConfig(
    embed_dims=(4,) * 8,
    depths=(1,) * 8,
    num_heads=(1,) * 8,
    window=(2, 2, 2),
    indep_reconsts=(),
    mul_attn_ratio=1.0,
    deformable_groups=1,
    flow="none",
    drop_path_rate=0.3,
    spike_channels=(4, 4, 4, 4),
    spike_heads=1,
    fusion_heads=1,
)


def make_store(folder: Path, val: int, sharp_at: tuple[float, float] | None = None) -> Path:
    rig = RigConfig(num_frames=3, exposure_frames=12, gap_frames=4, sharp_at=sharp_at)
    scenes = SceneConfig(height=32, width=32, train=2, val=val, test=1, objects=(1, 1), rig=rig)
    simulate_scenes(folder / "raw", scenes)
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=4, workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("with_val"), val=1)


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    """A run that nothing interrupted."""
    return train(config(store), tmp_path_factory.mktemp("whole") / "run")


def config(store: Path, **changes: object) -> TrainConfig:
    values = TrainConfig(
        store=store,
        steps=6,
        log_every=1,
        validate_every=3,
        checkpoint_every=2,
        sample_every=6,
        clip=ClipConfig(num_frames=2, crop=16),
        network=NETWORK,
        loss=LossConfig(perceptual_weight=0.0),
        optim=OptimConfig(lr=2e-3, warmup_steps=2, ema_decay=0.9),
    )
    return replace(values, **changes)


def test_leaves_a_complete_run_folder(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done: list[int] = []
    report = train(config(store), run, progress=lambda n, total, what: done.append(n))
    assert report.step == 6 and not report.interrupted and done == [1, 2, 3, 4, 5, 6]
    assert report.to_json() == {
        "run": str(run),
        "step": 6,
        "loss": report.loss,
        "val_psnr": report.val_psnr,
        "checkpoint": str(run / "checkpoints" / "best.safetensors"),
    }
    assert load_config(TrainConfig, run / "config.yaml") == replace(config(store), voxels="k4")
    facts = json.loads((run / "run.json").read_text())
    (session,) = facts["sessions"]
    assert session["versions"]["torch"] == torch.__version__
    assert (session["step"], session["how"], session["error"]) == (6, "finished", None)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert lines[3]["val_frames"] == 3 and lines[-2]["loss"] == report.loss
    assert "val PSNR" in (run / "log.txt").read_text()
    assert Image.open(run / "samples" / "step_000006.png").width > 4 * 256
    assert list((run / "tensorboard").iterdir())
    info = read_info(run / "checkpoints" / "last.safetensors")
    assert info.step == 6 and info.best["val_psnr"] == report.val_psnr and info.averaged


def test_the_checkpoint_makes_the_network_again(store: Path, tmp_path: Path) -> None:
    train(config(store, steps=2, validate_every=0, sample_every=0), tmp_path / "run")
    network, info = load_network(tmp_path / "run")
    assert info.num_bins == 4 and info.voxels == "k4" and info.normalization.num_bins == 4
    with torch.no_grad():
        assert network(torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 4, 8, 8)).isfinite().all()


def test_virtual_grids_teach_the_same_weights_bit_for_bit(store: Path, tmp_path: Path) -> None:
    counted = shutil.copytree(store, tmp_path / "store")
    voxelize(counted, num_bins=4, virtual=True)
    assert not list(counted.glob("*/*/voxels/k4/c"))
    once = {"steps": 2, "validate_every": 2, "sample_every": 0}
    one, two = (
        train(config(path, **once), tmp_path / f"run of {path.parent.name}") for path in (store, counted)
    )
    assert (one.loss, one.val_psnr) == (two.loss, two.val_psnr)
    for name in ("last", "best"):
        stored, virtual = (
            load_tensors(run.run / "checkpoints" / f"{name}.safetensors") for run in (one, two)
        )
        assert stored.keys() == virtual.keys()
        assert not [key for key in stored if not torch.equal(stored[key], virtual[key])]


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_an_interrupted_run_goes_on_to_the_same_weights_bit_for_bit(
    store: Path, whole: TrainReport, tmp_path: Path, stop: int
) -> None:
    first = train(config(store), tmp_path / "run", stop_at=stop)
    assert first.interrupted and first.step == stop
    torch.rand(17)  # whatever the generator did in between
    second = train(config(store, log_every=2, workers=1), tmp_path / "run", resume=True)
    assert (second.step, second.loss, second.val_psnr) == (6, whole.loss, whole.val_psnr)
    for name in ("last", "best"):
        one, two = (
            load_tensors(run / "checkpoints" / f"{name}.safetensors") for run in (whole.run, tmp_path / "run")
        )
        assert one.keys() == two.keys()
        assert not [key for key in one if not torch.equal(one[key], two[key])]


def test_a_signal_ends_the_run_with_a_checkpoint(store: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    report = train(config(store, checkpoint_every=0), tmp_path / "run", progress=interrupt)
    assert report.interrupted and report.step == 2 and report.checkpoint.is_file()
    assert "--resume" in (tmp_path / "run" / "log.txt").read_text()


def test_a_request_during_validation_changes_nothing_of_the_outcome(
    store: Path, whole: TrainReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Validator._score

    def interrupt(validator: Validator, network: torch.nn.Module, window: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return score(validator, network, window)  # type: ignore[arg-type]

    monkeypatch.setattr(Validator, "_score", interrupt)
    first = train(config(store), tmp_path / "run")
    assert first.interrupted and first.step == 3 and first.val_psnr is None
    assert train(config(store), tmp_path / "run", resume=True).step == 3  # again, before the first step
    monkeypatch.undo()
    last = train(config(store), tmp_path / "run", resume=True)
    assert (last.step, last.loss, last.val_psnr) == (6, whole.loss, whole.val_psnr)
    assert_same_checkpoints(whole.run, tmp_path / "run")
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole.run, tmp_path / "run")
    ]
    assert [(line["step"], line.get("val_psnr")) for line in lines[0]] == [
        (line["step"], line.get("val_psnr")) for line in lines[1]
    ]


def assert_same_checkpoints(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        first, second = (load_tensors(run / "checkpoints" / f"{name}.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        assert not [key for key in first if not torch.equal(first[key], second[key])]


def test_a_second_interrupt_while_a_checkpoint_is_written_leaves_the_one_before(
    store: Path, whole: TrainReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = signal.signal(signal.SIGINT, signal.default_int_handler)
    fsync, run = os.fsync, tmp_path / "run"

    def interrupt(descriptor: int) -> None:
        if list((run / "checkpoints").glob(f".step_000003*{PARTIAL}")):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config(store), run)
    monkeypatch.undo()
    signal.signal(signal.SIGINT, calm)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["last.safetensors", "step_000002.safetensors"]
    train(config(store), run, resume=True)
    assert_same_checkpoints(whole.run, run)


def test_a_shard_damaged_while_training_ends_it_with_a_checkpoint_and_the_fix(
    store: Path, whole: TrainReport, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    before = set(threading.enumerate())

    def damage(done: int, total: int, what: str) -> None:
        if done == 3:
            mapped._MAPS.__init__()  # as if it had not been read yet
            for shard in copy.glob("train/*/blurry/c/**/*"):
                if shard.is_file():
                    with shard.open("r+b") as file:
                        file.write(b"\xff" * 4096)

    quick = {"validate_every": 0, "sample_every": 0, "checkpoint_every": 0}
    with pytest.raises(StoreError, match="does not match its checksum") as caught:
        train(config(copy, **quick), tmp_path / "run", progress=damage)
    assert "blurry" in caught.value.problem and "spk repair" in caught.value.fix
    info = read_info(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert 3 <= info.step <= 5  # some batches were read before
    assert "is the last good one; saving it" in (tmp_path / "run" / "log.txt").read_text()
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if "ThreadPool" in thread.name]
    train(config(store, **quick), tmp_path / "run", resume=True)
    one, two = (
        load_tensors(run / "checkpoints" / "last.safetensors") for run in (whole.run, tmp_path / "run")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_of_failing_steps_ends_with_the_clips_and_the_place_where_it_began(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(*about: Any) -> torch.nn.Module:
        network = build_network(*about)
        network.stage2.linear1.register_forward_hook(
            lambda module, given, gave: gave * float("nan") if module.training else None
        )
        return network

    monkeypatch.setattr("model.training.preparation.build_network", spoiled)
    quick = config(store, validate_every=0, sample_every=0, max_skipped=2, checkpoint_every=1)
    with pytest.raises(
        TrainingError, match=r"2 steps in a row, up to step 2(.|\n)*stage2\.linear1"
    ) as caught:
        train(quick, tmp_path / "run")
    assert len(str(caught.value).splitlines()) < 20
    failed = read_failed_step(tmp_path / "run" / "failed_step_000002.safetensors")
    assert failed.report["diagnosis"]["modules"][0]["name"] == "stage2.linear1"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    named = [line["left_out"] for line in lines if "left_out" in line]
    (clip,) = failed.report["clips"]
    assert named[1] == [f"{clip['sequence']} {clip['frames'][0]}..{clip['frames'][1] - 1}"]
    info = read_info(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert info.step == 2 and info.header["loss"] is None and info.header["skipped"] == 2


def test_weights_that_are_not_finite_are_not_saved(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Learner.step

    def spoil(learner: Learner, number: int, *about: Any) -> Any:
        result = step(learner, number, *about)
        if number == 2:
            with torch.no_grad():
                learner.network.conv_last.bias[0] = float("inf")
        return result

    monkeypatch.setattr(Learner, "step", spoil)
    with pytest.raises(TrainingError, match=r"after step 4, .*\n  model\.conv_last\.bias: 1 Inf of 3"):
        train(config(store, validate_every=0, sample_every=0), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["last.safetensors", "step_000002.safetensors"]


def test_out_of_memory_ends_the_run_with_a_checkpoint_and_the_way_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Learner._backward

    def short(learner: Learner, forward: Any, sample: Any, count: int) -> Any:
        if learner.optimizer.state and len(sample.blurry) == 2:  # from the second step on
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has …")
        return backward(learner, forward, sample, count)

    monkeypatch.setattr(Learner, "_backward", short)
    monkeypatch.setattr("model.training.memory_report.measure_activations", lambda *about: ACTIVATIONS)
    quick = config(store, batch_size=2, validate_every=0, sample_every=0, checkpoint_every=0)
    with pytest.raises(TrainingError, match=r"in step 2: Tried to allocate 3\.00 GiB\n  weights ") as caught:
        train(quick, tmp_path / "run")
    assert "  batch_size=1 optim.accumulate=2" in caught.value.fix
    assert len(str(caught.value).splitlines()) < 20
    assert read_info(tmp_path / "run" / "checkpoints" / "last.safetensors").step == 1
    changed = replace(quick, batch_size=1, optim=replace(quick.optim, accumulate=2))
    assert train(changed, tmp_path / "run", resume=True).step == 6


def test_a_damaged_last_checkpoint_costs_an_interval_and_is_in_the_log(
    store: Path, whole: TrainReport, tmp_path: Path
) -> None:
    train(config(store), tmp_path / "run", stop_at=4)
    with (tmp_path / "run" / "checkpoints" / "last.safetensors").open("r+b") as file:
        file.truncate(5000)
    report = train(config(store), tmp_path / "run", resume=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "falling back" in log and "step_000003.safetensors (step 3)" in log
    assert (report.loss, report.val_psnr) == (whole.loss, whole.val_psnr)


def test_a_finished_run_says_so_again(store: Path, tmp_path: Path) -> None:
    quick = config(store, steps=2, validate_every=0, sample_every=0)
    first = train(quick, tmp_path / "run")
    assert train(quick, tmp_path / "run", resume=True) == first
    assert first.val_psnr is None and first.checkpoint.name == "last.safetensors"


def test_a_second_training_in_the_folder_is_refused(store: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def second(done: int, total: int, what: str) -> None:
        with pytest.raises(TrainingError, match="another process is writing") as caught:
            train(quick, tmp_path / "run", resume=True)
        refused.append(caught.value.fix)

    quick = config(store, steps=1, validate_every=0, sample_every=0)
    assert train(quick, tmp_path / "run", progress=second).step == 1 and len(refused) == 1


def test_goes_on_longer_but_not_with_other_settings(store: Path, tmp_path: Path) -> None:
    quick = config(store, steps=2, validate_every=0, sample_every=0)
    train(quick, tmp_path / "run")
    for changes in ({"seed": 1}, {"batch_size": 2}, {"network": replace(NETWORK, drop_path_rate=0.0)}):
        with pytest.raises(UsageError, match="other settings") as caught:
            train(replace(quick, **changes), tmp_path / "run", resume=True)
        assert len(caught.value.problem.splitlines()) == 2
    assert train(replace(quick, steps=3), tmp_path / "run", resume=True).step == 3


def test_refuses_another_store_of_the_same_name(store: Path, tmp_path: Path) -> None:
    quick = config(store, steps=1, validate_every=0, sample_every=0)
    train(quick, tmp_path / "run")
    other = make_store(tmp_path, val=0)
    with pytest.raises(UsageError, match="store fingerprint"):
        train(replace(quick, store=other), tmp_path / "run", resume=True)


def test_does_not_write_over_a_run(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        train(config(store), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_a_val_split_nothing_else_is_validated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path, val=0)
    with caplog.at_level(logging.WARNING):
        report = train(config(store, steps=2, validate_every=1, sample_every=0), tmp_path / "run")
    assert report.val_psnr is None and report.checkpoint.name == "last.safetensors"
    assert caplog.text.count("no split 'val'") == 1


def test_rgb_only_and_starting_from_its_weights(store: Path, tmp_path: Path) -> None:
    rgb = config(store, steps=2, validate_every=0, sample_every=0, network=replace(NETWORK, fusion="none"))
    report = train(rgb, tmp_path / "rgb")
    fused = replace(
        rgb, network=NETWORK, init=report.checkpoint, optim=replace(rgb.optim, lr=1e-12, min_lr=0.0)
    )
    train(fused, tmp_path / "fused")
    assert json.loads((tmp_path / "fused" / "run.json").read_text())["parent"] == str(report.checkpoint)
    blurry = torch.rand(1, 2, 3, 16, 16)
    with torch.no_grad():
        wanted = load_network(tmp_path / "rgb")[0](blurry)
        found = load_network(tmp_path / "fused")[0](blurry, torch.rand(1, 2, 4, 8, 8))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_fine_tunes_by_low_rank_updates_and_leaves_the_weights_it_started_from(
    store: Path, tmp_path: Path
) -> None:
    lora = LoraConfig(rank=2, alpha=4.0, layers=("qkv", "proj", "mlp"))
    rgb = replace(NETWORK, fusion="none")
    published = build_network(rgb, 4).state_dict()
    torch.nn.init.normal_(published["conv_last.weight"], std=0.02)  # 0 at first, which hides all other layers
    torch.save({"params": published}, tmp_path / "vrt.pth")
    tuned = config(store, steps=4, validate_every=4, sample_every=0, init=tmp_path / "vrt.pth", lora=lora)
    train(tuned, tmp_path / "whole")
    train(tuned, tmp_path / "run", stop_at=2)
    train(tuned, tmp_path / "run", resume=True)
    text = (tmp_path / "whole" / "log.txt").read_text()
    assert re.search(
        r"LoRA of rank 2: 0\.\d\d M of 0\.\d\d M parameters learn, with low-rank updates of \d+ layers", text
    )
    assert "import check: max|Δ| = 0\n" in text
    one, two = (load_tensors(tmp_path / run / "checkpoints" / "last.safetensors") for run in ("whole", "run"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[f"model.{name}"], value) for name, value in published.items())
    moments = {name.split(".", 2)[2] for name in one if name.startswith("optimizer.exp_avg.")}
    assert moments == {name.removeprefix("ema.") for name in one if name.startswith("ema.")}
    assert all(".lora." in name or name.startswith(("fusions.", "spike_encoder.")) for name in moments)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["trainable"] == sum(one[f"model.{name}"].numel() for name in moments) < facts["parameters"]


def test_a_fine_tuned_checkpoint_gives_a_plain_network_that_can_be_started_from(
    store: Path, whole: TrainReport, tmp_path: Path
) -> None:
    quick = config(store, steps=1, validate_every=0, sample_every=0, init=whole.checkpoint)
    quick = replace(quick, network=replace(NETWORK, checkpoint_stages=(1, 8)))
    tuned = replace(quick, lora=LoraConfig(rank=2), parallel=ParallelConfig(device="cpu", precision="bf16"))
    train(tuned, tmp_path / "tuned")
    network, _ = load_network(tmp_path / "tuned")
    assert network.state_dict().keys() == load_network(whole.run)[0].state_dict().keys()
    train(replace(quick, init=tmp_path / "tuned" / "checkpoints" / "last.safetensors"), tmp_path / "on")
    assert f"{len(network.state_dict())} tensors with" in (tmp_path / "on" / "log.txt").read_text()


def test_a_new_spike_branch_settles_before_the_rgb_network_moves(store: Path, tmp_path: Path) -> None:
    rgb = config(store, steps=1, validate_every=0, sample_every=0, network=replace(NETWORK, fusion="none"))
    loaded = load_tensors(train(rgb, tmp_path / "rgb").checkpoint, "ema.")
    optim = replace(rgb.optim, rgb_freeze_steps=2, flow_freeze_steps=2)
    fused = replace(rgb, steps=3, network=NETWORK, init=tmp_path / "rgb" / "checkpoints" / "last.safetensors")
    last = tmp_path / "fused" / "checkpoints" / "last.safetensors"
    for stop, moves in ((2, False), (3, True)):
        train(replace(fused, optim=optim), tmp_path / "fused", resume=moves, stop_at=stop)
        weights = load_tensors(last, "model.")
        same = {
            name for name in loaded if torch.equal(weights[name.replace("ema.", "model.", 1)], loaded[name])
        }
        assert len(same) < len(loaded) / 2 if moves else same == loaded.keys()  # a dropped block stays
        assert weights["model.fusions.0.attn.proj.weight"].abs().max() > 0  # it started at zero
    assert (
        "rgb: 0.01 M parameters, learning rate x 1, frozen for 2 steps"
        in (tmp_path / "fused" / "log.txt").read_text()
    )


def test_a_memory_budget_changes_no_weight_and_may_change_on_the_way(store: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    free = config(store, steps=4, validate_every=0, sample_every=0)
    train(free, whole)
    clip = clip_size(free, 4, scale=1)
    place = Parallel(device=torch.device("cpu"))
    activations = measure_activations(NETWORK, clip, place, count_flops(NETWORK, clip, backward=False))
    tight, loose = (activations.peak_bytes(stages) / 1e9 for stages in ((1, 8), ()))
    train(replace(free, network=replace(NETWORK, memory_gb=tight)), run, stop_at=2)
    text = (run / "log.txt").read_text()
    assert re.search(
        r"checkpointing stages [\d, ]+: \d+\.\d of \d+\.\d GB saved activations, \+\d+ % FLOPs", text
    )
    train(replace(free, network=replace(NETWORK, memory_gb=loose)), run, resume=True)
    assert "checkpointing no stage" in (run / "log.txt").read_text()
    saved = load_config(TrainConfig, run / "config.yaml").network
    assert (saved.memory_gb, saved.checkpoint_stages) == (loose, ())
    one, other = (load_tensors(folder / "checkpoints" / "last.safetensors") for folder in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_budget_that_cannot_be_met_leaves_no_run(store: Path, tmp_path: Path) -> None:
    settings = config(store, network=replace(NETWORK, memory_gb=1.0e-4))
    with pytest.raises(ConfigError, match=r"network\.memory_gb=0\.0001: .* cannot be kept below 0\.\d+ GB"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_says_what_it_started_from_and_that_the_fused_network_still_gives_it(
    store: Path, tmp_path: Path
) -> None:
    published = build_network(replace(NETWORK, fusion="none"), 4).state_dict()
    torch.save({"params": published}, tmp_path / "vrt.pth")
    settings = config(store, steps=1, validate_every=0, sample_every=0, init=tmp_path / "vrt.pth")
    for fusion in ("cross_attention", "none"):
        train(replace(settings, network=replace(NETWORK, fusion=fusion)), tmp_path / fusion)
        text = (tmp_path / fusion / "log.txt").read_text()
        assert f"vrt.pth: {len(published)} tensors with" in text and "import check: max|Δ| = 0\n" in text
    published["conv_last.bias"].fill_(float("nan"))
    torch.save(published, tmp_path / "vrt.pth")
    with pytest.raises(CheckpointError, match=r"import check: max\|Δ\| = nan"):
        train(settings, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_missing_store_is_one_readable_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        train(config(tmp_path / "absent"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_vgg_weights_are_said_before_anything_is_trained(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match="VGG16 weights") as caught:
        train(config(store, loss=LossConfig()), tmp_path / "run")
    assert "loss.perceptual_weight=0" in caught.value.fix
    assert not (tmp_path / "run").exists()


def test_learns_instants_and_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    store = make_store(tmp_path_factory.mktemp("instants"), val=1, sharp_at=(0.0, 1.0))
    less = {"steps": 4, "validate_every": 4, "sample_every": 0}
    settings = config(store, network=replace(NETWORK, instants=True), workers=1, **less)
    whole = train(settings, tmp_path / "whole")
    train(settings, tmp_path / "run", stop_at=1)
    again = train(replace(settings, workers=2), tmp_path / "run", resume=True)
    assert (again.loss, again.val_psnr) == (whole.loss, whole.val_psnr)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "run")
    fresh, learned = (
        load_tensors(tmp_path / "whole" / "checkpoints" / f"step_{step:06d}.safetensors") for step in (2, 4)
    )
    first = "model.spike_encoder.pyramid.scales.0.0.weight"
    assert ((fresh[first] - learned[first])[:, -INSTANT_CHANNELS:] != 0).any()
    with pytest.raises(UsageError, match=r"network\.instants: True in the run, False now"):
        train(config(store, **less), tmp_path / "run", resume=True)
