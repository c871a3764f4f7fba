from typing import Any

import pytest

from cli.console import Output
from cli.run_screen import SHOWN_SESSIONS, show_run

SESSION = {
    "started": "2026-01-01T10:20:30+00:00",
    "from_step": 0,
    "to_step": 4000,
    "ended": None,
    "how": None,
    "error": None,
    "device": "H200",
    "processes": 8,
    "versions_changed": {},
}
CHECKPOINT = {
    "name": "step_004000",
    "also": ["last"],
    "step": 4000,
    "bytes": 1 << 20,
    "age_s": 200.0,
    "whole": True,
}
FACTS = {
    "run": "runs/base",
    "state": "running",
    "error": None,
    "step": 4000,
    "steps": 10_000,
    "logged_step": 4100,
    "eta_s": 3600.0,
    "heard_s": 12.0,
    "loss": 0.0123,
    "lr": 2e-4,
    "grad_norm": 0.5,
    "samples_per_s": 27.0,
    "data_share": 0.04,
    "epoch": 3.5,
    "skipped": 2,
    "val_psnr": 30.0,
    "best_psnr": 31.0,
    "best_step": 3000,
    "parameters": 1234,
    "trainable": 1234,
    "lineage": [{"path": "a.safetensors", "step": 7}, {"path": "b.pth", "step": None}],
    "store": "data/store",
    "store_now": "changed",
    "checkpoint_list": [CHECKPOINT],
    "session_list": [SESSION],
    "curves": {"loss": [[1, 1.0], [2, 0.0]], "val_psnr": [[1, 29.0], [2, 30.0]]},
    "problems": [],
}
NOTHING = {
    **dict.fromkeys(FACTS),
    "run": "r",
    "step": 0,
    "logged_step": 0,
    "problems": [],
    "curves": {},
    "lineage": [],
    "checkpoint_list": [],
    "session_list": [],
}


def said(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    show_run(Output(), FACTS | changes)
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _logging_put_back(spk) -> None:
    """The fixture `spk` does it."""


def test_a_running_run_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    assert "runs/base: running, step 4,100 of 10,000 (41%), ETA 1h00m, last heard of 12s ago" in text
    for words in ("0.0123", "█▁", "30.00, best 31.00 at step 3,000", "▁█", "2026-01-01 10:20", "8 x H200"):
        assert words in text
    assert "a.safetensors (step 7) from b.pth" in text and "CHANGED" in text
    assert "step_004000, last" in text and "1.0 MiB" in text and "3m20s" in text and "yes" in text
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "failed", "error": "out of memory"}, ("failed, step", "it failed: out of memory")),
        ({"state": "killed", "eta_s": None}, ("killed: it ended without a word",)),
        ({"state": "interrupted"}, ("interrupted, and can be resumed",)),
        ({"trainable": 1000}, ("network: 1234 parameters, of which 1000 learn",)),
        ({"checkpoint_list": []}, ("checkpoints: none yet",)),
        ({"checkpoint_list": [CHECKPOINT | {"step": None, "whole": False}]}, ("NO", "?")),
        ({"problems": ["run.json: damaged"]}, ("damaged: run.json: damaged",)),
        ({"session_list": [SESSION] * (SHOWN_SESSIONS + 3)}, ("sessions, the last 8 of 11",)),
        (
            {"session_list": [SESSION, SESSION | {"versions_changed": {"torch": ["1", "2"]}}]},
            ("torch 1 -> 2",),
        ),
    ],
)
def test_tells_what_is_wrong(changes: dict[str, Any], words: tuple[str, ...], capsys) -> None:
    text = said(capsys, **changes)
    assert [word for word in words if word not in text] == []


def test_of_a_run_that_left_nothing_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_run(Output(), NOTHING)
    text = capsys.readouterr().out
    assert "r: nobody knows how it stands, step 0" in text and "checkpoints: none yet" in text
