import contextlib
import json
from pathlib import Path

import pytest
import torch

from model.checkpoint import read_info
from model.parallel import Parallel
from model.training.events import Best, Milestone
from model.training.layer_watch import LayerWatch
from model.training.preparation import Prepared, prepare
from model.training.records import listeners_of, saver
from model.training.run_folder import RunFolder
from model.training.step_clips import StepClips
from model.training.validation import Validator
from pipeline.errors import TrainingError
from pipeline.reader_times import ReaderTimes
from tests.model.test_train import config, make_store
from tests.model.training.test_events import METRICS


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    store = make_store(tmp_path / "made", val=0)
    place = Parallel(device=torch.device("cpu"))
    return prepare(config(store), RunFolder(tmp_path / "run"), place, resume=False)


def test_a_checkpoint_tells_the_whole_state(prepared: Prepared, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    saver(prepared, folder)(Milestone(3, float("nan"), Best(2, 30.0), True, 5, 1, look_due=True))
    header = read_info(folder.checkpoints.best).header
    assert (header["step"], header["loss"], header["best"]) == (3, None, {"step": 2, "val_psnr": 30.0})
    assert (header["skipped"], header["skipped_in_a_row"], header["look_due"]) == (5, 1, True)
    assert header["identity"] == prepared.identity and len(header["rng"]["state"]) == 64


def test_weights_that_are_not_finite_are_not_written(prepared: Prepared, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with torch.no_grad():
        next(prepared.learner.network.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(TrainingError):
        saver(prepared, folder)(Milestone(3, 0.5, None, False))
    assert not folder.checkpoints.steps()


def test_everything_in_the_folder_is_told_and_closed(prepared: Prepared, tmp_path: Path) -> None:
    learner, folder = prepared.learner, RunFolder(tmp_path / "run")
    folder.path.mkdir()
    learner.watch = LayerWatch(learner.network, learner.optimizer, 0)
    validator = Validator(
        [],
        "k4",
        num_frames=2,
        crop=None,
        max_clips=None,
        scale=1,
        restore=learner.restore,
        place=learner.place,
    )
    clips = StepClips(prepared.phases, prepared.sources, seed=0)
    with contextlib.ExitStack() as stack:
        for listener in listeners_of(stack, prepared, folder, validator, clips, ReaderTimes()):
            listener.on_step(METRICS)
            listener.on_skipped(4, float("nan"), 1.0)
            listener.on_pictures(6, learner.network)
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == METRICS.loss and lines[1]["left_out"][0].startswith("train/")
    assert list((folder.path / "samples").glob("*.png")) and list((folder.path / "tensorboard").iterdir())
