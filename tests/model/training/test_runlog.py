import logging
from dataclasses import replace
from pathlib import Path

import pytest

from model.training.runlog import (
    duration,
    errors_only,
    log_file,
    log_line,
)
from tests.model.training import test_metrics_file as metrics_file

METRICS = replace(metrics_file.METRICS, memory_bytes=int(17.8 * 2**30))


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
