import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from model.training.run_folder import LOCK, RunFolder
from model.training.session import is_running, recorded
from pipeline.errors import TrainingError

BEGIN = {"from_step": 4}


def sessions(run: Path) -> list[dict[str, object]]:
    return json.loads((run / "run.json").read_text())["sessions"]


def test_a_session_says_how_it_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with recorded(folder, "steps: 9\n", {"parameters": 3}, BEGIN) as session:
        assert sessions(folder.path) == [BEGIN]
        session.step = 9
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


OTHER = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("process 7 on a host: spk train", file=file, flush=True)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_running_as_long_as_a_process_holds_its_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config("")
    assert not is_running(tmp_path)
    with folder.lock():
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    command = [sys.executable, "-c", OTHER, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n" and is_running(tmp_path)
        with pytest.raises(TrainingError, match="process 7 on a host"), folder.lock():
            pytest.fail("it began")
        process.kill()
    assert (tmp_path / LOCK).exists() and not is_running(tmp_path)  # the kernel takes the lock from the dead
    with folder.lock():
        assert is_running(tmp_path)
