import errno
import io
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model.training.events import StepMetrics, Validation
from model.training.metrics_file import MetricsFile, read_metrics

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
    memory_bytes=1 << 30,
    eta_s=90_061.0,
    samples_per_s=27.2,
    epoch=4.5,
)


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
    assert (first["samples_per_s"], first["epoch"]) == (27.2, 4.5)
    assert second["loss"] is None and second["grad_norm"] is None
    written = datetime.fromisoformat(third.pop("time"))
    assert (
        written.utcoffset().total_seconds() == 0 and abs((datetime.now(UTC) - written).total_seconds()) < 60
    )
    assert third == {"step": 1200, "val_psnr": 31.5, "val_frames": 12, "best": True}
    assert all("time" in line for line in (first, second))


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    metrics = MetricsFile(path, 2)
    metrics.on_step(replace(METRICS, step=3))
    metrics.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("line", ["what", "[1]", '{"loss": 1}', '{"step": null}', '{"step": "3"}', "\x00"])
def test_a_damaged_line_is_named_and_costs_only_itself(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 0.5}}\n{line}\n{{"step": 2, "val_psnr": 30.0}}\n{{"st')
    found = read_metrics(path)
    assert [it["step"] for it in found.lines] == [1, 2] and found.damaged == [2]
    assert [it["step"] for it in found.of_steps()] == [1]
    assert [it["step"] for it in found.of_validations()] == [2]
    with caplog.at_level(logging.WARNING):
        MetricsFile(path, 2).close()
    assert "metrics.jsonl: damaged in line 2" in caplog.text
    assert read_metrics(path) == (list(found.lines), [])


def test_a_file_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == ([], [])


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
