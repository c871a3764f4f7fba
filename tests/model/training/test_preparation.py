import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.parallel import Parallel
from model.train import train
from model.training.config import PhaseConfig
from model.training.events import Best
from model.training.preparation import Prepared, prepare
from model.training.run_folder import RunFolder
from pipeline.errors import UsageError
from tests.model.test_train import config, make_store

HERE = Parallel(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"), val=1)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps of six."""
    return train(config(store, validate_every=2), tmp_path_factory.mktemp("run") / "run", stop_at=2).run


def prepared(store: Path, run: Path, *, resume: bool = False, **changes: object) -> Prepared:
    return prepare(config(store, validate_every=2, **changes), RunFolder(run), HERE, resume=resume)


def test_a_fresh_run_begins_at_nothing_and_writes_nothing(store: Path, tmp_path: Path) -> None:
    found = prepared(store, tmp_path / "run")
    assert (found.first, found.start, found.best) == (0, None, None)
    assert found.config.voxels == "k4" and len(found.sources) == len(found.phases) == 1
    assert found.milestone == (0, None, None, False, 0, 0, False)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_begins_as_its_checkpoint_was(store: Path, run: Path) -> None:
    found = prepared(store, run, resume=True)
    assert found.first == found.milestone.step == 2
    assert found.best and found.milestone.best == Best(**found.best.best)
    saved = found.start.header if found.start else {}
    assert found.milestone.loss == saved["loss"] and saved["identity"] == found.identity
    assert found.header().keys() <= saved.keys()


def test_another_network_cannot_go_on(store: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="seed: 0 in the run, 3 now"):
        prepared(store, run, resume=True, seed=3)


def test_says_what_will_be_trained_and_what_looks_like_a_mistake(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = (PhaseConfig(start=99, crop=16),)
    found = prepared(store, tmp_path / "run", phases=phases)
    optim = replace(found.config.optim, warmup_steps=6)
    with caplog.at_level(logging.INFO):
        replace(found, config=replace(found.config, optim=optim)).announce()
    assert "clips to learn from" in caplog.text and "steps 1 to 6" in caplog.text
    assert (
        "never reaches optim.lr" in caplog.text and "the phase from step 99 is never reached" in caplog.text
    )


def test_doubts_that_instants_can_be_learned_from_sharp_frames_that_are_all_at_one(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = replace(prepared(store, tmp_path / "other").config.network, instants=True)
    found = prepared(store, tmp_path / "run", network=told)
    found.announce()
    assert "the sharp frames are at 0." in caplog.text and "no other instant" in caplog.text
