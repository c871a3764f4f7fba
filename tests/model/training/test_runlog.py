import errno
import io
import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.training.events import StepMetrics, Validation
from model.training.guarded import Guarded
from model.training.runlog import (
    LogLines,
    MetricsFile,
    TensorBoardLog,
    duration,
    errors_only,
    log_file,
    log_line,
)

METRICS = StepMetrics(
    step=1200,
    steps=300_000,
    loss=0.01234,
    charbonnier=0.01,
    perceptual=0.02,
    lr=2e-4,
    grad_norm=0.512,
    skipped=0,
    steps_per_s=3.4,
    data_share=0.04,
    memory_bytes=int(17.8 * 2**30),
    eta_s=90_061.0,
)


def test_a_step_in_one_line() -> None:
    assert log_line(METRICS) == (
        "step 1200/300000  loss 0.0123  lr 2.0e-04  grad 0.51  3.4 it/s  data 4 % compute 96 %"
        "  mem 17.8 GiB  ETA 1d01h"
    )
    assert log_line(replace(METRICS, skipped=3)).endswith("skipped 3")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m00s"), (200, "3m20s"), (18_420, "5h07m"), (187_200, "2d04h")]
)
def test_durations_by_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_hints_once_when_clips_are_slow(caplog: pytest.LogCaptureFixture) -> None:
    lines = LogLines(workers=2)
    with caplog.at_level(logging.INFO):
        for share in (0.2, 0.5, 0.6):
            lines.on_step(replace(METRICS, data_share=share))
    assert caplog.text.count("waiting for clips") == 1
    assert "50 % of the time" in caplog.text and "workers=4" in caplog.text


def test_metrics_are_json_lines(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics.on_step(METRICS)
    metrics.on_step(replace(METRICS, loss=float("nan"), grad_norm=float("inf")))
    metrics.on_validation(1200, Validation(31.5, 12), True)
    metrics.close()
    first, second, third = (
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    )
    assert first["loss"] == 0.01234 and first["data_share"] == 0.04
    assert second["loss"] is None and second["grad_norm"] is None
    assert third == {"step": 1200, "val_psnr": 31.5, "val_frames": 12, "best": True}


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    metrics = MetricsFile(path, 2)
    metrics.on_step(replace(METRICS, step=3))
    metrics.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_log_file_keeps_what_is_said_inside_and_puts_levels_back(tmp_path: Path) -> None:
    log = logging.getLogger("model.anything")
    before = logging.getLogger("model").level
    with log_file(tmp_path / "log.txt"):
        log.info("inside %d", 1)
    log.warning("outside")
    assert "INFO inside 1" in (tmp_path / "log.txt").read_text()
    assert "outside" not in (tmp_path / "log.txt").read_text()
    assert logging.getLogger("model").level == before


def test_processes_that_do_not_write_speak_of_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("model.anything")
    with caplog.at_level(logging.INFO), errors_only():
        log.warning("repeated")
        log.error("important")
    assert caplog.messages == ["important"]


def test_tensorboard_has_curves_and_pictures(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    board.on_step(METRICS)
    board.on_validation(1200, Validation(31.5, 12), True)
    board.show(1200, np.zeros((3, 4, 9), np.uint8))
    board.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert found.Scalars("val/psnr")[0].value == pytest.approx(31.5)
    assert found.Scalars("train/lr")[0].step == 1200
    assert found.Tags()["images"] == ["blurry | restored | sharp"]


class FullDisk(io.RawIOBase):
    """A file on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        self.written += taken
        return len(taken)


def test_metrics_go_on_without_a_gap_or_half_a_line_when_a_full_disk_has_space_again(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics._file.close()
    metrics._file = disk = FullDisk(room=20)
    for step in range(4):
        with pytest.raises(OSError, match="No space"):
            metrics.write({"step": step, "loss": 0.5})
    disk.room = 10_000
    metrics.write({"step": 4, "loss": 0.5})
    metrics.close()
    assert [json.loads(line)["step"] for line in disk.written.splitlines()] == [0, 1, 2, 3, 4]


def test_metrics_that_never_find_space_are_no_error_at_the_end(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics._file.close()
    metrics._file = FullDisk(room=0)
    with pytest.raises(OSError, match="No space"):
        metrics.write({"step": 1})
    metrics.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_file_that_cannot_be_written_is_said_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("model.anything")
    with log_file(Path("/dev/full")):
        for step in range(5):
            log.info("step %d", step)
    assert caplog.text.count("/dev/full CANNOT BE WRITTEN: [Errno 28]") == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_begins_a_new_file_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = TensorBoardLog(tmp_path, 0)
    guarded = Guarded(board)
    guarded.on_step(METRICS)
    writer = board._writer._get_file_writer().event_writer._async_writer._writer
    monkeypatch.setattr(writer, "write", lambda data: (_ for _ in ()).throw(OSError(28, "No space left")))
    for step in range(1, 40):  # until the thread that writes has found out
        guarded.on_validation(step, Validation(20.0, 1), False)
        time.sleep(0.002)
    guarded.on_validation(50, Validation(31.5, 12), True)
    board.close()
    scalars = EventAccumulator(str(tmp_path)).Reload().Scalars("val/psnr")
    assert scalars[-1].step == 50 and len(list(tmp_path.iterdir())) == 2


def test_tensorboard_waits_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = TensorBoardLog(tmp_path, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    with pytest.raises(OSError, match="No space"):
        board.recover()
    assert len(list(tmp_path.iterdir())) == 1
    board.close()
