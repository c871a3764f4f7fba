import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from model.training import session as module
from model.training.run_folder import RunFolder
from model.training.session import is_running, recorded
from pipeline.errors import TrainingError, UsageError

BEGIN = {"from_step": 4}


def sessions(run: Path) -> list[dict[str, object]]:
    return json.loads((run / "run.json").read_text())["sessions"]


def test_a_session_says_how_it_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not is_running(folder.path)
    with recorded(folder, "steps: 9\n", {"parameters": 3}, BEGIN) as session:
        assert is_running(folder.path) and sessions(folder.path) == [BEGIN]
        session.step = 9
    assert not is_running(folder.path)
    with recorded(folder, "steps: 9\n", {"parameters": 3}, {"from_step": 9}) as session:
        session.step, session.interrupted = 11, True
    first, second = sessions(folder.path)
    assert (first["from_step"], first["step"], first["how"], first["error"]) == (4, 9, "finished", None)
    assert (second["from_step"], second["step"], second["how"]) == (9, 11, "interrupted")
    assert first["ended"].endswith("+00:00") and (folder.path / "config.yaml").read_text() == "steps: 9\n"


@pytest.mark.parametrize(
    ("error", "how", "told"),
    [
        (TrainingError("out of memory", "lower it"), "failed", "out of memory"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_an_error_is_kept_and_goes_on_up(
    error: BaseException, how: str, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(type(error)),
        recorded(RunFolder(tmp_path), "", {}, BEGIN) as session,
    ):
        session.step = 5
        raise error
    (found,) = sessions(tmp_path)
    assert (found["step"], found["how"], found["error"]) == (5, how, told)
    assert f"ended after step 5: {how}" in caplog.text and (told or "") in caplog.text


def test_a_full_disk_at_the_end_does_not_hide_what_ended_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunFolder, facts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "end_session", full)
    with pytest.raises(TrainingError, match="first"), recorded(RunFolder(tmp_path), "", {}, BEGIN):
        raise TrainingError("first")
    assert "No space left" in caplog.text


def _train(run: Path, begun: object, end: object) -> None:
    with recorded(RunFolder(run), "", {}, BEGIN):
        begun.set()
        end.wait(60)


def test_another_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    process = context.Process(target=_train, args=(tmp_path, begun, end))
    process.start()
    try:
        assert begun.wait(60) and is_running(tmp_path)
        before = (tmp_path / "config.yaml").read_text()
        with (
            pytest.raises(UsageError, match=f"another process is training here: process {process.pid}"),
            recorded(RunFolder(tmp_path), "other: 1\n", {}, BEGIN),
        ):
            pytest.fail("it began")
        assert (tmp_path / "config.yaml").read_text() == before and len(sessions(tmp_path)) == 1
        process.kill()
        process.join()
        assert not is_running(tmp_path)  # the kernel lets go of the lock of the dead
        with recorded(RunFolder(tmp_path), "", {}, BEGIN):
            pass
    finally:
        end.set()
        process.join()
    assert [session.get("how") for session in sessions(tmp_path)] == [None, "finished"]


def test_without_locks_it_trains_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    with recorded(RunFolder(tmp_path), "", {}, BEGIN):
        pass
    assert "cannot be locked" in caplog.text and sessions(tmp_path)[0]["how"] == "finished"
