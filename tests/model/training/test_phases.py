"""Phases: which step is in which, what it sees, and that a run can stop and go on anywhere around their borders."""

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint_file import load_tensors
from model.cost import clip_size
from model.losses import LossConfig
from model.network import NetworkConfig
from model.parallel import Parallel
from model.train import TrainReport, train
from model.training.config import PhaseConfig, TrainConfig
from model.training.dry_run import plan_training
from model.training.optim import OptimConfig
from model.training.phases import Phase, largest_phase, phase_batches, phases_of, seen_after, sources_of
from pipeline.clips import ClipConfig, ClipSource, Sample
from pipeline.config import to_plain
from pipeline.errors import TrainingError, UsageError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import open_store
from pipeline.voxelize import voxelize

PHASES = (
    PhaseConfig(start=2, crop=24, batch_size=1),
    PhaseConfig(start=4, crop=24, num_frames=3, batch_size=1),
)
NETWORK = NetworkConfig(
    embed_dims=(4,) * 8,
    depths=(1,) * 8,
    num_heads=(1,) * 8,
    window=(2, 2, 2),
    indep_reconsts=(),
    mul_attn_ratio=1.0,
    deformable_groups=1,
    flow="none",
    fusion="none",
    drop_path_rate=0.3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    rig = RigConfig(num_frames=4, exposure_frames=12, gap_frames=4)
    scenes = SceneConfig(height=32, width=32, train=2, val=1, test=0, objects=(1, 1), rig=rig)
    simulate_scenes(folder / "raw", scenes)
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=4, workers=1)
    return folder / "store"


def config(store: Path = Path("store"), **changes: object) -> TrainConfig:
    values = TrainConfig(
        store=store,
        steps=6,
        batch_size=2,
        phases=PHASES,
        log_every=1,
        validate_every=3,
        checkpoint_every=0,
        sample_every=0,
        clip=ClipConfig(num_frames=2, crop=16),
        network=NETWORK,
        loss=LossConfig(perceptual_weight=0.0),
        optim=OptimConfig(lr=2e-3, warmup_steps=2, ema_decay=0.9),
    )
    return replace(values, **changes)


def sizes(phases: tuple[Phase, ...]) -> list[tuple[int, int, int, int, int]]:
    return [(p.start, p.stop, p.clip.crop, p.clip.num_frames, p.batch_size) for p in phases]


def test_without_phases_a_run_is_one() -> None:
    plain = config(phases=())
    assert phases_of(plain) == (Phase(start=0, stop=6, clip=plain.clip, batch_size=2),)


def test_a_phase_lasts_until_the_next_and_takes_what_it_does_not_say_from_the_config() -> None:
    assert sizes(phases_of(config())) == [(0, 2, 16, 2, 2), (2, 4, 24, 2, 1), (4, 6, 24, 3, 1)]
    assert phases_of(config())[1].clip == ClipConfig(num_frames=2, crop=24)
    first = (PhaseConfig(start=0, crop=8), PhaseConfig(start=5))
    assert sizes(phases_of(config(phases=first))) == [(0, 5, 8, 2, 2), (5, 6, 16, 2, 2)]


def test_phases_beyond_the_last_step_are_left_out() -> None:
    assert sizes(phases_of(config(steps=4))) == sizes(phases_of(config()))[:2]
    assert sizes(phases_of(config(steps=3)))[-1][:2] == (2, 3)


@pytest.mark.parametrize("starts", [(3, 3), (4, 2)])
def test_refuses_phases_out_of_order(starts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must increase"):
        config(phases=tuple(PhaseConfig(start=start) for start in starts))


@pytest.mark.parametrize("changes", [{"start": -1}, {"crop": 4}, {"num_frames": 0}, {"batch_size": 0}])
def test_refuses_sizes_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        PhaseConfig(**({"start": 0} | changes))


def test_memory_is_planned_for_the_largest_phase() -> None:
    assert largest_phase(config()).start == 4
    size = clip_size(config(), num_bins=4, scale=2)
    assert (size.batch, size.frames, size.crop) == (1, 3, 24)
    shrinking = config(phases=(PhaseConfig(start=1, batch_size=1),))
    assert clip_size(shrinking, num_bins=4, scale=2).batch == 2


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"crop": 40}, UsageError, "phase from step 5: clip.crop=40 is larger than the frames"),
        ({"num_frames": 5}, TrainingError, "phase from step 5: .*no clip of 5 consecutive frames"),
    ],
)
def test_a_phase_that_cannot_be_is_refused_before_the_first_step(
    store: Path, tmp_path: Path, change: dict[str, int], error: type[Exception], problem: str
) -> None:
    wrong = config(store, phases=(PhaseConfig(start=5, **change),))
    for begin in (train, plan_training):
        with pytest.raises(error, match=problem):
            begin(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def take(store: Path, settings: TrainConfig, **changes: int) -> list[Sample]:
    place = Parallel(device=torch.device("cpu"), rank=changes.pop("rank", 0), world=changes.pop("world", 1))
    phases = phases_of(settings)
    sources = sources_of(phases, open_store(store), "k4")
    how = {"seed": 3, "start_step": 0, "workers": 0} | changes
    return list(phase_batches(phases, sources, place, **how))


def same(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_every_step_has_the_size_of_its_phase(store: Path) -> None:
    shapes = [tuple(batch.blurry.shape) for batch in take(store, config())]
    assert shapes == [(2, 2, 3, 16, 16)] * 2 + [(1, 2, 3, 24, 24)] * 2 + [(1, 3, 3, 24, 24)] * 2


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5])
def test_a_step_sees_the_same_whatever_the_start_and_the_threads(
    store: Path, workers: int, start: int
) -> None:
    whole = take(store, config())
    found = take(store, config(), workers=workers, start_step=start)
    assert len(found) == 6 - start
    assert all(same(one, other) for one, other in zip(found, whole[start:], strict=True))


def test_a_step_sees_the_same_however_it_is_dealt_out_and_however_long_the_run(store: Path) -> None:
    wide = config(batch_size=4, phases=(PhaseConfig(start=2, crop=24, batch_size=2),))
    narrow = config(batch_size=2, phases=(PhaseConfig(start=2, crop=24, batch_size=1),))
    whole = take(store, wide)
    ranks = [take(store, narrow, rank=rank, world=2) for rank in (0, 1)]
    micro = take(store, narrow, accumulate=2)
    for step, batch in enumerate(whole):
        for parts in ([of_rank[step] for of_rank in ranks], micro[2 * step : 2 * step + 2]):
            assert same(Sample(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), batch)
    longer = take(store, replace(wide, steps=8))
    assert all(same(one, other) for one, other in zip(whole, longer[:6], strict=True))


def test_clips_are_numbered_on_from_phase_to_phase(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = ClipSource.draw
    monkeypatch.setattr(
        ClipSource, "draw", lambda self, number, seed: drawn.append(number) or draw(self, number, seed)
    )
    take(store, config())
    assert drawn == list(range(8))


def test_batches_of_the_next_phase_are_read_while_the_last_of_this_one_is_used(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[int] = []
    room = ClipSource.room
    monkeypatch.setattr(
        ClipSource, "room", lambda self, size, **how: rooms.append(self.config.crop) or room(self, size)
    )
    phases = phases_of(config())
    place = Parallel(device=torch.device("cpu"))
    sources = sources_of(phases, open_store(store), "k4")
    stream = phase_batches(phases, sources, place, seed=0, start_step=0, workers=1)
    assert [batch.blurry.shape[-1] for batch in itertools.islice(stream, 2)] == [16, 16]
    deadline = time.monotonic() + 20
    while len(rooms) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)  # a thread asks for memory when it begins to read
    assert rooms == [16, 16, 24]
    stream.close()


def test_phases_that_cut_clips_alike_share_them(store: Path) -> None:
    alike = config(phases=(PhaseConfig(start=1, batch_size=1), PhaseConfig(start=2, crop=24)))
    one, two, three = sources_of(phases_of(alike), open_store(store), "k4")
    assert one is two and three is not one


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return train(config(store), tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize(("stop", "workers"), [(1, 1), (2, 3), (3, 0), (4, 2)])
def test_a_run_goes_on_around_a_border_to_the_same_weights_bit_for_bit(
    store: Path, whole: TrainReport, tmp_path: Path, stop: int, workers: int
) -> None:
    train(config(store, workers=workers), tmp_path / "run", stop_at=stop)
    second = train(config(store, workers=2 - workers % 2), tmp_path / "run", resume=True)
    assert (second.step, second.loss, second.val_psnr) == (6, whole.loss, whole.val_psnr)
    one, two = (
        load_tensors(run / "checkpoints" / "last.safetensors") for run in (whole.run, tmp_path / "run")
    )
    assert one.keys() == two.keys() and not [key for key in one if not torch.equal(one[key], two[key])]


@pytest.mark.parametrize(("steps", "clips", "epochs"), [(0, 0, 0.0), (1, 6, 1.5), (5, 21, 6.0), (9, 24, 7.5)])
def test_what_was_seen_counts_the_batches_of_each_phase(steps: int, clips: int, epochs: float) -> None:
    phases = phases_of(config())
    assert [phase.batch_size for phase in phases] == [2, 1, 1]
    there_are = [range(4), range(4), range(2)]  # as long as the sources
    assert seen_after(phases, there_are, 3, steps) == (clips, epochs)


def test_the_log_and_the_dry_run_tell_the_phases(store: Path, whole: TrainReport, tmp_path: Path) -> None:
    log = (whole.run / "log.txt").read_text()
    for words in (
        "steps 1 to 2: batches of 2 clips, 2 frames of 16x16",
        "steps 5 to 6: batches of 1 clip, 3 frames of 24x24",
        "learning rate, cosine: 0.001 in step 1",
    ):
        assert words in log
    plan = plan_training(config(store), tmp_path / "run")
    assert plan.phases == phases_of(config())
    assert [point.step for point in plan.learning_rate] == [1, 3, 6]


def test_a_resumed_run_keeps_its_phases_but_may_deal_out_their_batches_otherwise(
    store: Path, whole: TrainReport, tmp_path: Path
) -> None:
    other = (replace(PHASES[0], start=3), PHASES[1])
    for changes in ({"phases": ()}, {"phases": other}, {"batch_size": 4}):
        with pytest.raises(UsageError, match="other settings"):
            plan_training(config(store, **changes), whole.run, resume=True)
    doubled = config(store, batch_size=4, phases=tuple(replace(p, batch_size=2) for p in PHASES))
    halved = replace(doubled, batch_size=2, phases=PHASES, optim=replace(doubled.optim, accumulate=2))
    train(doubled, tmp_path / "run", stop_at=1)
    assert plan_training(halved, tmp_path / "run", resume=True).step == 1
    assert to_plain(halved)["phases"][0] == {"start": 2, "crop": 24, "num_frames": None, "batch_size": 1}
