import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.training.events import StepMetrics, Validation
from model.training.runlog import (
    FailedBatches,
    MetricsFile,
    TensorBoardLog,
    duration,
    errors_only,
    log_file,
    log_line,
)
from pipeline.clips import Sample

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


def test_keeps_the_batches_that_failed(tmp_path: Path) -> None:
    sample = Sample(*(torch.full((2,), i, dtype=torch.uint8) for i in range(3)))
    FailedBatches(tmp_path).on_failure(6, [sample, sample])
    found = load_file(tmp_path / "failed_step_000007.safetensors")
    assert found["1.voxels"].tolist() == [1, 1] and len(found) == 6
