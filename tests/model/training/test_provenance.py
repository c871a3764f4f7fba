"""What is said of a run: enough to repeat it, and the same however its work is dealt out."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from model.checkpoint import read_info
from model.checkpoint_file import save_checkpoint
from model.parallel import Parallel
from model.training.config import PhaseConfig, TrainConfig
from model.training.optim import OptimConfig
from model.training.provenance import (
    checkpoint_header,
    identity_of,
    identity_then,
    numerics,
    run_facts,
    session_facts,
    warn_of_other_numerics,
)
from model.training.run_folder import require_same
from pipeline.config import build
from pipeline.errors import UsageError
from pipeline.stats import Normalization

STORE = SimpleNamespace(path=Path("data/store"), place="data/store", name="made", fingerprint="f00d")
SOURCE = SimpleNamespace(num_bins=8, scale=2)
CONFIG = TrainConfig(store=STORE.path, voxels="k8", batch_size=4, seed=3)
NORMALIZATION = Normalization(num_bins=8, transform="log1p", mean=0.25, std=0.5, num_values=64)


def place(world: int = 1, rank: int = 0) -> Parallel:
    return Parallel(device=torch.device("cpu"), rank=rank, world=world)


def identity(config: TrainConfig = CONFIG, world: int = 1, **changes: Any) -> dict[str, Any]:
    store, source = (SimpleNamespace(**(vars(it) | changes)) for it in (STORE, SOURCE))
    return identity_of(config, store, source, place(world))


def shared_out(batch_size: int, accumulate: int) -> TrainConfig:
    return replace(CONFIG, batch_size=batch_size, optim=OptimConfig(accumulate=accumulate))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world"), [(2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 1, 4), (1, 2, 2)]
)
def test_the_same_clips_a_step_are_the_same_run_however_they_are_dealt_out(batch_size, accumulate, world):
    found = identity(shared_out(batch_size, accumulate), world)
    assert found == identity() and found["clips of a step"] == 4


def test_clips_of_a_phase_are_counted_for_all_processes_too():
    phases = (PhaseConfig(start=5, crop=64, batch_size=2), PhaseConfig(start=9))
    found = identity(replace(shared_out(4, 2), phases=phases), world=2)
    assert [phase["clips of a step"] for phase in found["phases"]] == [8, 16]
    halved = tuple(replace(phase, batch_size=phase.batch_size and phase.batch_size // 2) for phase in phases)
    assert identity(replace(shared_out(2, 4), phases=halved), world=2) == found


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (identity(replace(CONFIG, batch_size=5)), "clips of a step: 4 in the run, 5 now"),
        (identity(world=2), "clips of a step: 4 in the run, 8 now"),
        (identity(replace(CONFIG, seed=4)), "seed: 3 in the run, 4 now"),
        (identity(replace(CONFIG, optim=OptimConfig(weight_decay=0.5))), "optim.weight_decay"),
        (identity(fingerprint="beef"), "store fingerprint: f00d in the run, beef now"),
        (identity(num_bins=16), "bins: 8 in the run, 16 now"),
    ],
)
def test_what_decides_the_weights_is_part_of_it(changed, named):
    before = json.loads(json.dumps(identity()))  # as a checkpoint hands it back
    require_same(Path("run"), before, identity())
    with pytest.raises(UsageError) as caught:
        require_same(Path("run"), before, changed)
    assert named in caught.value.problem and caught.value.problem.count("\n") == 1


def test_settings_newer_than_a_checkpoint_had_their_defaults() -> None:
    now = identity()
    then = json.loads(json.dumps(now))
    del then["lora"], then["optim"]["schedule"], then["clip"]["spikes"]
    require_same(Path("run"), identity_then(then, CONFIG), now)
    with pytest.raises(UsageError, match=r"optim\.schedule: cosine"):
        changed = identity(replace(CONFIG, optim=OptimConfig(schedule="constant")))
        require_same(Path("run"), identity_then(then, CONFIG), changed)


def test_a_checkpoint_tells_all_that_using_it_takes(tmp_path):
    header = checkpoint_header(CONFIG, STORE, SOURCE, NORMALIZATION, identity(), nn.Linear(2, 3), place())
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"model.weight": torch.zeros(2)}, {**header, "step": 7, "loss": 0.5, "best": None})
    info = read_info(path)
    assert (info.step, info.num_bins, info.scale, info.voxels) == (7, 8, 2, "k8")
    assert info.normalization == NORMALIZATION
    assert info.header["parameters"] == {"total": 9, "trainable": 9}
    assert info.store == {"path": "data/store", "fingerprint": "f00d"}
    assert build(TrainConfig, info.config, "header") == CONFIG
    assert info.header["identity"] == identity() and info.header["rng"]["seed"] == 3
    assert info.versions["torch"] == torch.__version__


def test_says_what_keeps_a_resumed_run_from_the_same_bits(caplog: pytest.LogCaptureFixture) -> None:
    here = numerics(place())
    assert here["threads"] == torch.get_num_threads() and json.loads(json.dumps(here)) == here
    warn_of_other_numerics(Path("run"), here, here)
    warn_of_other_numerics(Path("run"), {}, here)  # a checkpoint that does not tell
    assert not caplog.messages
    warn_of_other_numerics(Path("run"), here | {"threads": 64, "device": "H100"}, here)
    (said,) = caplog.messages
    assert f"threads {here['threads']} (64 before)" in said and "device cpu (H100 before)" in said


def test_a_run_tells_its_size_and_where_it_comes_from():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))  # 6 + 2, and 2
    network[1].requires_grad_(False)
    facts = run_facts(CONFIG, STORE, network)
    assert facts == {
        "parameters": 10,
        "trainable": 8,
        "store": {"path": "data/store", "name": "made", "fingerprint": "f00d"},
        "parent": None,
    }
    assert run_facts(replace(CONFIG, init=Path("w.pth")), STORE, network)["parent"] == "w.pth"


def test_a_session_tells_when_and_where_it_began():
    before = datetime.now(UTC)
    facts = json.loads(json.dumps(session_facts(place(world=2), from_step=40)))
    started = datetime.fromisoformat(facts["started"])
    assert math.floor(before.timestamp()) <= started.timestamp() <= datetime.now(UTC).timestamp()
    assert started.utcoffset().total_seconds() == 0
    assert (facts["from_step"], facts["device"], facts["processes"]) == (40, "cpu", 2)
    assert facts["threads"] == torch.get_num_threads() and facts["versions"]["torch"] == torch.__version__


def test_a_session_on_a_gpu_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert session_facts(Parallel(device=torch.device("cuda", 3)), 0)["device"] == "GPU 3"
