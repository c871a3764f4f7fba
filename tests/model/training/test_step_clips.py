from typing import Any

import pytest
import torch

from model.training.phases import Phase
from model.training.step_clips import StepClips, name_of
from pipeline.clips import ClipConfig, ClipSource, Draw, batches
from pipeline.store import open_store
from tests.model.test_train import make_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ClipSource:
    store = open_store(make_store(tmp_path_factory.mktemp("store"), val=0))
    return ClipSource(store, "train", "k4", ClipConfig(num_frames=2, crop=16))


@pytest.mark.parametrize("rank", [0, 1])
def test_names_what_a_process_read(source: ClipSource, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"seed": 3, "accumulate": 3, "world": 2}
    phases = [Phase(start=0, stop=9, clip=source.config, batch_size=2)]
    read: list[Draw] = []
    read_into = source.read_into
    monkeypatch.setattr(
        source, "read_into", lambda draw, batch, place: (read.append(draw), read_into(draw, batch, place))
    )
    given = batches(source, start_step=5, rank=rank, workers=0, batch_size=2, **how)
    samples = [next(given) for _ in range(3)]
    described = StepClips(phases, [source], **how).of_process(5, rank)
    assert [(clip["batch"], clip["place"]) for clip in described] == [
        (b, p) for b in range(3) for p in range(2)
    ]
    assert [clip["frames"][0] for clip in described] == [draw.clip.first_frame for draw in read]
    assert [clip["augmentation"]["row"] for clip in described] == [draw.augmentation.row for draw in read]
    for clip in described:
        again = source.read(source.draw(clip["number"], 3))
        assert torch.equal(again.blurry, samples[clip["batch"]].blurry[clip["place"]])


def test_a_step_names_the_clips_of_all_processes(source: ClipSource) -> None:
    phases = [Phase(start=0, stop=9, clip=source.config, batch_size=2)]
    clips = StepClips(phases, [source], seed=3, accumulate=3, world=2)
    of_each = [name_of(clip) for rank in range(2) for clip in clips.of_process(5, rank)]
    assert sorted(clips.names(5)) == sorted(of_each) and len(of_each) == 12
    assert all(name.split()[0] in source.names for name in of_each)


def test_names_first_and_last_frame() -> None:
    assert name_of({"sequence": "train/a", "frames": [3, 8]}) == "train/a 3..7"
