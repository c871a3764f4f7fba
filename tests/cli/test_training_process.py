import time
from pathlib import Path

import pytest

from cli import training_process as module
from cli.training_process import training_process
from pipeline.errors import TrainingError

TRAINER = """
import json, os, sys, time
from pathlib import Path

config, run = sys.argv[2], Path(sys.argv[sys.argv.index("-o") + 1])
run.mkdir(parents=True, exist_ok=True)
(run / "said.json").write_text(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "arguments": sys.argv[1:]}))
(run / "metrics.jsonl").write_text('{"step": 3, "loss": 0.1}\\n{"step": 7, "lo')
if config == "endless":
    time.sleep(600)
sys.exit(int(config) if config.isdigit() else f"error: {config}")
"""


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `cli` that pretends to train."""
    package = tmp_path / "checkout" / "cli"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(TRAINER)
    monkeypatch.setattr(module, "CHECKOUT", package.parent)
    monkeypatch.chdir(tmp_path)


def test_trains_in_a_folder_with_some_threads_and_tells_how_far_it_is(tmp_path: Path) -> None:
    with training_process(tmp_path / "run", ["0", "seed=1"], threads=3) as training:
        training.process.wait()
        training.require_success()
    said = (tmp_path / "run" / "said.json").read_text()
    assert '"threads": "3"' in said and '"seed=1"' in said
    assert training.steps_done() == 3  # the other line is not finished


def test_no_step_is_done_before_the_first() -> None:
    with training_process(Path("run"), ["endless"], threads=1) as training:
        assert training.steps_done() in (0, 3)


def test_an_error_is_told_in_its_own_words(tmp_path: Path) -> None:
    with training_process(tmp_path / "run", ["no clips"], threads=1) as training:
        training.process.wait()
        with pytest.raises(TrainingError, match="run: training failed\nerror: no clips"):
            training.require_success()
        training.require_success(1)


def test_one_that_still_runs_is_ended(tmp_path: Path) -> None:
    with training_process(tmp_path / "run", ["endless"], threads=1) as training:
        training.require_success()
        while not training.steps_done():
            time.sleep(0.01)
    assert training.process.returncode == -15
