import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.training.diagnosis import diagnose
from model.training.failed_step import read_failed_step
from model.training.post_mortem import PostMortem
from tests.model.training.test_learner import clip, make, poison


class FakeClips:
    """Names that need no store."""

    sources = (SimpleNamespace(num_bins=4, scale=2),)

    def of_process(self, step: int, rank: int) -> list[dict[str, Any]]:
        return [{"number": step, "sequence": "train/a", "frames": [3, 5]}]


def post_mortem(folder: Path, learner: Any) -> PostMortem:
    return PostMortem(folder, None, learner, FakeClips())  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_keeps_the_clips_and_what_was_found_in_them(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = make()
    poison(part)(learner)
    text = post_mortem(tmp_path, learner).of_step(6, [clip(6)])
    path = tmp_path / "failed_step_000007.safetensors"
    assert "not finite" in text and f"clips train/a 3..4, kept in {path}" in caplog.text
    failed = read_failed_step(path)
    assert failed.report["clips"][0]["number"] == 6
    assert all(torch.equal(one, other) for one, other in zip(failed.batches[0], clip(6), strict=True))
    assert diagnose(learner, failed.step, failed.batches).to_json() == {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in failed.report["diagnosis"].items()
    }


def test_of_several_processes_those_that_find_something_keep_it(tmp_path: Path) -> None:
    for poisoned in (False, True):
        learner = make()
        learner.place = replace(learner.place, world=2, rank=int(poisoned))
        if poisoned:
            poison("loss")(learner)
        post_mortem(tmp_path, learner).of_step(0, [clip(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["failed_step_000001_process_1.safetensors"]


def test_a_disk_that_is_full_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    learner = make()
    poison("loss")(learner)
    with caplog.at_level(logging.ERROR):
        text = post_mortem(tmp_path / "file" / "run", learner).of_step(0, [clip(0)])
    assert "not finite" in text and "cannot be written" in caplog.text


def test_no_memory_for_a_diagnosis_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make()

    def fail(step: int, batches: object) -> None:
        raise MemoryError("tried to allocate 3 GiB")

    monkeypatch.setattr(learner, "repeat", fail)
    text = post_mortem(tmp_path, learner).of_step(0, [clip(0)])
    assert "no memory for a diagnosis: tried to allocate 3 GiB" in text
    assert read_failed_step(tmp_path / "failed_step_000001.safetensors").report["diagnosis"] is None
