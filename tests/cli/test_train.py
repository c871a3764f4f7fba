import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from model.checkpoint import read_info
from model.train import TrainReport

KEYS = {"run", "step", "loss", "val_psnr", "checkpoint"}


def test_a_dry_run_says_what_would_be_done(
    store: Path, tmp_path: Path, small_training: list[str], trained: Path, spk
) -> None:
    command = ("train", "tiny", *small_training, f"store={store}", "-o", tmp_path / "run", "--dry-run")
    plan = spk(*command, "--json").json
    assert plan.keys() >= KEYS | {"dry_run", "steps", "clips", "parameters"}
    assert (plan["step"], plan["steps"], plan["clips"], plan["loss"]) == (0, 4, 4, None)
    assert plan["parameters"] == spk("inspect", trained, "--json").json["parameters"]
    ran = spk(*command)
    assert "from step 0 to 4" in ran.out and "4 clips to learn from" in ran.out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_fine_tuning_says_how_much_would_learn(
    store: Path, tmp_path: Path, small_training: list[str], trained: Path, spk
) -> None:
    start = f"init={trained / 'checkpoints' / 'last.safetensors'}"
    command = ("train", "tiny", *small_training, f"store={store}", start, "-o", tmp_path / "run", "--dry-run")
    plan = spk(*command, "lora.rank=1", "--json").json
    assert plan["trainable"] < spk(*command, "--json").json["trainable"] < plan["parameters"]
    assert f"of which {plan['trainable']} learn" in spk(*command, "lora.rank=1").out
    ran = spk(*command, "lora.rank=1", "lora.layers=[qkw]")
    ran.assert_fails(2, "lora.layers: 'qkw'", "kinds are qkv, proj")


def test_a_dry_run_tells_the_learning_rate_and_the_phases(
    store: Path, tmp_path: Path, small_training: list[str], spk
) -> None:
    phases = "phases=[{start: 1, batch_size: 1}, {start: 3, crop: 24, batch_size: 1}]"
    command = (
        "train",
        "tiny",
        *small_training,
        f"store={store}",
        phases,
        "-o",
        tmp_path / "run",
        "--dry-run",
    )
    ran = spk(*command)
    assert "learning rate, cosine: 0.004 in step 1, 0.004 in step 2, 0.00101 in step 4" in ran.out
    assert ", learning rate x 1\nspikes: " in ran.out
    assert "steps 2 to 3: batches of 1 clip, 2 frames of 16x16\n" in ran.out
    plan = spk(*command, "--json").json
    assert plan["learning_rate"][0] == {"step": 1, "lr": 0.004}
    assert [(phase["start"], phase["clip"]["crop"]) for phase in plan["phases"]] == [
        (0, 16),
        (1, 16),
        (3, 24),
    ]
    assert {pace["part"]: pace["multiplier"] for pace in plan["paces"]}["flow"] == 0.25
    spk(*command, "phases=[{start: 1, corp: 24}]").assert_fails(2, "phases[0].corp", "did you mean 'crop'")


def test_a_dry_run_of_a_resumed_run_starts_where_it_is(store: Path, trained: Path, spk) -> None:
    command = ("train", trained / "config.yaml", "-o", trained, "--resume", "--dry-run")
    assert spk(*command, "steps=9", "--json").json["step"] == 4
    spk(*command, "seed=9").assert_fails(2, "seed", "0 in the run, 9 now")


def test_goes_on_with_more_steps_and_other_threads(trained: Path, tmp_path: Path, spk) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    ran = spk("train", run / "config.yaml", "steps=5", "--workers", 1, "-o", run, "--resume", "--json")
    assert ran.json.keys() >= KEYS and ran.json["step"] == 5
    info = read_info(run / "checkpoints" / "last.safetensors")
    assert info.config["workers"] == 1 and info.config["steps"] == 5


def test_the_default_run_folder_is_named_by_the_config(
    store: Path, tmp_path: Path, small_training: list[str], spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = spk("train", "tiny", *small_training, f"store={store}", "--dry-run", "--json")
    assert ran.json["run"] == "runs/tiny"


def test_a_stopped_run_says_how_to_go_on_with_exit_code_75(
    store: Path, tmp_path: Path, spk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "my run"
    report = TrainReport(
        run=run, step=3, loss=0.5, val_psnr=None, checkpoint=run / "checkpoints" / "last", interrupted=True
    )
    monkeypatch.setattr("model.train.train", lambda *arguments, **options: report)
    ran = spk("train", "tiny", f"store={store}", "-o", run)
    assert ran.code == 75
    assert f"go on with: spk train '{run}/config.yaml' -o '{run}' --resume" in ran.out
    as_json = spk("train", "tiny", f"store={store}", "-o", run, "--json")
    assert as_json.code == 75 and '"step": 3' in as_json.out and as_json.out.count("\n") == 1


def test_without_a_terminal_there_are_plain_lines(
    store: Path, tmp_path: Path, small_training: list[str], spk
) -> None:
    ran = spk(
        "train",
        "tiny",
        *small_training,
        f"store={store}",
        "steps=2",
        "sample_every=0",
        "-o",
        tmp_path / "run",
    )
    assert ran.code == 0 and "\x1b" not in ran.err + ran.out
    assert "INFO    step 1/2  loss" in ran.err and "INFO    ended after step 2: finished" in ran.err


def on_terminal(
    command: list[str], columns: int, until: str, key: bytes, seconds: float = 120
) -> tuple[int, str]:
    """Run a command on a terminal of its own, press a key when some text is there; its exit code and all it drew."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
        os.execv(sys.executable, [sys.executable, "-m", "cli", *command])
    drawn, pressed, deadline = "", False, time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    piece = os.read(terminal, 1 << 16)
                except OSError:  # the other side is closed
                    break
                drawn += piece.decode(errors="replace")
            if not pressed and until in drawn:
                os.write(terminal, key)
                pressed = True
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), drawn


def test_on_a_terminal_it_is_live_and_ctrl_c_leaves_it_sane(
    store: Path, tmp_path: Path, small_training: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    often = ["steps=100000", "checkpoint_every=3", "validate_every=0", "sample_every=0", f"store={store}"]
    command = ["train", "tiny", *small_training, *often, "-o", str(tmp_path / "run")]
    code, drawn = on_terminal(command, 60, "ago", b"\x03")
    assert code == 75, drawn[-2000:]
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is shown again
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)
    assert "Traceback" not in plain and "\x1b" not in plain
    lines = re.split(r"[\r\n]+", plain)
    assert any(line.startswith("INFO") and "training" in line for line in lines)
    assert "step 1/100000" not in plain  # the display tells the figures of steps
    framed = [line for line in lines if line.startswith("│")]
    assert framed and {len(line) for line in framed} == {60}
    assert {line[2:12].strip() for line in framed} >= {
        "step",
        "loss",
        "learning",
        "speed",
        "time",
        "checkpoint",
    }
    assert "go on with: spk train" in plain.replace("\r\n", " ")
    assert 'how": "interrupted"' in (tmp_path / "run" / "run.json").read_text()


def test_a_profile_is_shown_and_left_in_the_run(
    store: Path, tmp_path: Path, small_training: list[str], spk
) -> None:
    run = tmp_path / "run"
    few = ["steps=6", "validate_every=0", "checkpoint_every=0", "sample_every=0"]
    ran = spk("train", "tiny", *small_training, *few, f"store={store}", "-o", run, "--profile", "--json")
    profile = ran.json["profile"]
    assert profile["trace"] == str(run / "profile" / "trace.json.gz") and profile["steps"] == 1
    assert (run / "profile" / "table.txt").read_text().startswith("profile of 1 steps of")
    assert "data wait" in ran.err and "stage1" in ran.err
    assert "data wait" in (run / "log.txt").read_text()
