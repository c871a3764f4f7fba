import errno
import fcntl
import json
import logging
import os
from pathlib import Path

import pytest
import torch

from model.training.run_folder import RunFolder, flatten, require_same
from pipeline.errors import CheckpointError, TrainingError, UsageError


def save(folder: RunFolder, step: int) -> None:
    header = {"step": step, "config": {}, "num_bins": 4}
    folder.checkpoints.save({"model.a": torch.ones(1)}, header, best=False)


def test_a_new_or_empty_folder_starts_at_step_0(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).find_start(resume=False) is None
    assert RunFolder(tmp_path / "new").find_start(resume=False) is None
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "anything").touch()
    with pytest.raises(UsageError, match="not empty") as caught:
        RunFolder(tmp_path).find_start(resume=False)
    assert "--resume" in caught.value.fix and caught.value.exit_code == 2


@pytest.mark.parametrize("content", [None, "other.txt"])
def test_there_must_be_a_run_to_resume(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).touch()
    with pytest.raises(UsageError, match="no run"):
        RunFolder(tmp_path).find_start(resume=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="not a folder"):
        RunFolder(tmp_path / "x").find_start(resume=False)


def test_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_session({}, {})
    for step in (1, 2):
        save(folder, step)
    start = folder.find_start(resume=True)
    assert start is not None and start.step == 2


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_session({}, {})
    assert folder.find_start(resume=True) is None
    assert "starting at step 0" in caplog.text


def test_a_run_whose_facts_are_gone_is_still_a_run_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    save(folder, 1)
    assert folder.is_run and folder.find_start(resume=True).step == 1
    assert "run.json is gone" in caplog.text


def test_one_training_at_a_time_and_nothing_is_left_of_the_lock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunFolder(run).lock():
        assert RunFolder(run).find_start(resume=False) is None  # a lock is no content
        with pytest.raises(TrainingError, match=f"run: another process is writing: process {os.getpid()}"):
            RunFolder(run).lock().__enter__()
    assert not run.exists()
    with RunFolder(run).lock():
        (run / "log.txt").touch()
    assert [path.name for path in run.iterdir()] == ["log.txt"]


def test_trains_without_a_lock_where_the_file_system_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fail)
    with RunFolder(tmp_path / "run").lock():
        assert "no lock on this file system" in caplog.text


def test_tidies_up_after_a_killed_session(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    save(folder, 1)
    leftovers = [tmp_path / ".run.json.a.partial", tmp_path / "samples" / ".step_1.png.b.partial"]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folder.tidy(folder.find_start(resume=True), None)
    assert not any(path.exists() for path in leftovers) and folder.checkpoints.last.is_file()


def test_every_start_is_a_session(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_session({"store": "s"}, {"from_step": 0})
    folder.write_session({"store": "s"}, {"from_step": 5})
    found = json.loads((tmp_path / "run.json").read_text())
    assert found == {"store": "s", "sessions": [{"from_step": 0}, {"from_step": 5}]}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
        folder.write_session({}, {})


def test_names_every_setting_that_changed_and_lets_the_harmless_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    then = {
        "optim": {"lr": 1e-3, "betas": [0.9, 0.99]},
        "seed": 0,
        "steps": 10,
        "parallel": {"device": "cpu"},
    }
    now = {
        "optim": {"lr": 2e-3, "betas": [0.9, 0.99]},
        "seed": 1,
        "steps": 20,
        "parallel": {"device": "cuda"},
    }
    with caplog.at_level(logging.INFO):
        require_same(tmp_path, then, then | {"steps": 20, "parallel": {"device": "cuda"}})
    assert caplog.messages == [
        "changed setting: parallel.device: cpu in the run, cuda now",
        "changed setting: steps: 10 in the run, 20 now",
    ]
    with pytest.raises(UsageError) as caught:
        require_same(tmp_path, then, now)
    lines = caught.value.problem.splitlines()
    assert lines[1:] == ["  optim.lr: 0.001 in the run, 0.002 now", "  seed: 0 in the run, 1 now"]
    assert "config.yaml" in caught.value.fix


def test_a_setting_that_appeared_is_a_change(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.b: \(not set\) in the run, 1 now"):
        require_same(tmp_path, {"a": {}}, {"a": {"b": 1}})


def test_flattens_to_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": [3]}) == {"a.b.c": 1, "a.d": 2, "e": [3]}
