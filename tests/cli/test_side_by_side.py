import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import side_by_side, training_process
from cli.side_by_side import train_side_by_side
from pipeline.errors import TrainingError

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path

assert sys.argv[1] == "train"
config, run = sys.argv[2], Path(sys.argv[sys.argv.index("-o") + 1])
if config == "broken":
    sys.exit("error: no clips in broken")
run.mkdir(parents=True, exist_ok=True)
said = {"threads": os.environ["OMP_NUM_THREADS"], "arguments": sys.argv[1:], "pid": os.getpid()}
(run / "said.json").write_text(json.dumps(said))
(run / "metrics.jsonl").write_text('{"step": 3, "loss": 0.1}\\n{"step": 7, "lo')
if config == "endless":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (run / "ready").touch()
    for _ in range(1200):
        time.sleep(0.05)
sys.exit(int(config))
"""


PARENT = """
import os, signal, sys
from pathlib import Path

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored where tests run
sys.path.insert(0, sys.argv[1])
from cli import training_process
from cli.side_by_side import train_side_by_side

os.chdir(sys.argv[2])
training_process.CHECKOUT = Path(sys.argv[2], "checkout")
sys.exit(75 if not train_side_by_side({Path("a"): ["endless"], Path("b"): ["endless"]}, 9, lambda *_: None) else 0)
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `cli` that pretends to train and says how it was called."""
    package = tmp_path / "checkout" / "cli"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(TRAINER)
    monkeypatch.setattr(training_process, "CHECKOUT", package.parent)
    monkeypatch.chdir(tmp_path)


def test_trains_all_at_once_with_a_share_of_the_cores_each(
    trainer: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    seen: list[tuple[int, int, str]] = []
    runs = {tmp_path / "a": ["0", "seed=1"], tmp_path / "b": ["0"]}
    assert train_side_by_side(runs, 10, lambda *report: seen.append(report))
    said = (tmp_path / "a" / "said.json").read_text()
    assert '"threads": "3"' in said and '"seed=1"' in said and "--resume" not in said
    assert seen[-1] == (6, 20, "a 3/10, b 3/10")


def test_goes_on_with_a_run_that_is_there(trainer: None, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text("{}")
    train_side_by_side({tmp_path / "a": ["0"]}, 10, lambda *_: None)
    assert "--resume" in (tmp_path / "a" / "said.json").read_text()


def test_says_when_one_was_interrupted(trainer: None, tmp_path: Path) -> None:
    assert not train_side_by_side({tmp_path / "a": ["0"], tmp_path / "b": ["75"]}, 10, lambda *_: None)


def test_an_error_of_one_stops_the_others(trainer: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="broken: training failed\nerror: no clips in broken"):
        train_side_by_side(
            {tmp_path / "a": ["endless"], tmp_path / "broken": ["broken"]}, 10, lambda *_: None
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_passes_a_request_to_stop_on_and_leaves_nobody_behind(
    number: signal.Signals, trainer: None, tmp_path: Path
) -> None:
    repository = str(Path(side_by_side.__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, repository, str(tmp_path)], stderr=subprocess.PIPE
    )
    runs = [tmp_path / "a", tmp_path / "b"]
    while parent.poll() is None and not all((run / "ready").exists() for run in runs):
        time.sleep(0.02)
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1].decode()
    assert parent.returncode == 75, said
    for run in runs:
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads((run / "said.json").read_text())["pid"], 0)
