import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.training.events import Validation
from model.training.guarded import Guarded
from model.training.layer_watch import LayerStats
from model.training.tensorboard_log import TensorBoardLog
from tests.model.training.test_metrics_file import METRICS


def test_has_curves_pictures_rates_and_the_config(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0, config="steps: 9\n", rates=lambda: {"network": 2e-4, "flow": 5e-5})
    board.on_step(METRICS)
    board.on_validation(1200, Validation(31.5, 12), True)
    board.show(1200, np.zeros((3, 4, 9), np.uint8))
    board.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert found.Scalars("val/psnr")[0].value == pytest.approx(31.5)
    assert found.Scalars("train/lr")[0].step == 1200
    assert found.Scalars("lr/flow")[0].value == pytest.approx(5e-5)
    assert found.Scalars("speed/samples_per_s")[0].value == pytest.approx(27.2)
    assert found.Tags()["images"] == ["blurry | restored | sharp | spikes"]
    (text,) = found.Tensors("config/text_summary")
    assert b"steps: 9" in text.tensor_proto.string_val[0]


def test_histograms_are_of_powers_of_ten_and_of_what_has_one(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    nan, inf = float("nan"), float("inf")
    stats = LayerStats({"stage1": [1e-3, 1e-1, 0.0, nan], "norm": [nan]}, {"stage1": [1e-4], "norm": [inf]})
    board.show_layers(50, stats)
    board.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(found.Tags()["histograms"]) == [
        "gradient norm, log10/stage1",
        "update over weight, log10/stage1",
    ]
    (event,) = found.Histograms("gradient norm, log10/stage1")
    assert event.step == 50 and event.histogram_value.num == 2
    assert (event.histogram_value.min, event.histogram_value.max) == pytest.approx((-3, -1))


def test_a_resumed_run_hides_what_a_killed_one_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    for step in (10, 20):
        board.on_validation(step, Validation(step, 1), True)
    board.close()
    board = TensorBoardLog(tmp_path, 10)
    board.on_validation(30, Validation(30, 1), True)
    board.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in found.Scalars("val/psnr")] == [10, 30]


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
