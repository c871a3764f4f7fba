import json
from pathlib import Path

import pytest

from cli import training_process
from cli.check_resume import check_resume
from model.training import same_run
from model.training.same_run import Part
from pipeline.errors import TrainingError
from pipeline.reports import no_progress

TRAINER = """
import json, sys, time
from pathlib import Path

words, run = sys.argv[2:], Path(sys.argv[sys.argv.index("-o") + 1])
run.mkdir(parents=True, exist_ok=True)
with (run / "said.jsonl").open("a") as file:
    print(json.dumps(words), file=file)
settings = dict(word.split("=") for word in words if "=" in word)
quick = "quick" in words or "--resume" in words or run.name != "resumed"
with (run / "metrics.jsonl").open("a", buffering=1) as file:
    for step in range(1, int(settings["steps"]) + 1):
        print(json.dumps({"step": step}), file=file)
        time.sleep(0 if quick else 0.02)
if not quick:
    time.sleep(600)
"""


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """A `cli` that pretends to train; which runs were compared. The weights of a resumed run differ."""
    package = tmp_path / "checkout" / "cli"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(TRAINER)
    monkeypatch.setattr(training_process, "CHECKOUT", package.parent)
    monkeypatch.chdir(tmp_path)
    pairs: list[tuple[str, str, int]] = []

    def compare(one: Path, other: Path, steps: int) -> list[Part]:
        pairs.append((one.name, other.name, steps))
        equal = other.name != "resumed"
        return [Part(part="weights", equal=equal, digests=("a", "b"), max_difference=None)]

    monkeypatch.setattr(same_run, "compare_runs", compare)
    return pairs


def said(run: Path) -> list[list[str]]:
    return [json.loads(line) for line in (run / "said.jsonl").read_text().splitlines()]


def test_kills_one_run_after_its_checkpoint_and_repeats_the_other_where_they_differ(
    compared: list[tuple[str, str, int]], tmp_path: Path
) -> None:
    check = check_resume(tmp_path, ["tiny", "seed=3"], 4, deterministic=True, progress=no_progress)
    assert (check.ok, check.steps, check.kills) == (False, 4, 1)
    assert compared == [("uninterrupted", "resumed", 8), ("uninterrupted", "repeated", 8)]
    (whole,), (first, second) = said(tmp_path / "uninterrupted"), said(tmp_path / "resumed")
    shared = ["tiny", "seed=3", "steps=8", "checkpoint_every=4", "log_every=1", "parallel.deterministic=true"]
    assert all(set(shared) <= set(words) for words in (whole, first, second))
    assert "--resume" in second and "--resume" not in first
    assert "workers=0" in first and "workers=2" in second
    lines = (tmp_path / "resumed" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert 4 < steps.index(1, 1) <= 8  # killed when it had gone on from step 4
    assert check.to_json().keys() == {"ok", "steps", "kills", "parts", "repeated"}


def test_says_when_there_was_no_time_to_kill(compared: list[tuple[str, str, int]], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="less time than to kill it") as caught:
        check_resume(tmp_path, ["quick"], 4, deterministic=False, progress=no_progress)
    assert "--check-steps" in caught.value.fix


def test_refuses_what_it_would_not_do(
    store: Path, tmp_path: Path, spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "tiny", f"store={store}", "--check-resume")
    spk(*command, "--resume").assert_fails(2, "--check-resume", "leave --resume out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").touch()
    spk(*command, "-o", tmp_path / "used").assert_fails(2, "not empty")
    monkeypatch.setenv("WORLD_SIZE", "2")
    spk(*command).assert_fails(2, "torchrun")


@pytest.mark.slow
def test_a_real_training_is_the_same_after_a_kill(
    store: Path, small_training: list[str], tmp_path: Path, spk
) -> None:
    settings = [*small_training, "network.drop_path_rate=0.3", f"store={store}"]
    told = spk("train", "tiny", *settings, "--check-resume", "--check-steps", 20, "--json").json
    assert told["ok"] and told["kills"] == 1 and told["run"] is None
    assert {part["part"] for part in told["parts"]} >= {"weights", "optimizer", "clips of every step"}
    assert all(part["equal"] and len(part["digest"]) == 64 for part in told["parts"])
