from pathlib import Path
from typing import ClassVar

import pytest

from model import plan as module
from model.plan import foretell, plan
from model.planning.plan import read_plan
from model.planning.planner import Foretold
from pipeline.errors import TrainingError, UsageError
from tests.model.planning.test_plan import CPU, PLAN


class FakePlanning:
    """Finds the same plan always, and remembers how it was asked."""

    asked: ClassVar[dict[str, object]] = {}
    error: Exception | None = None

    def __init__(self, config: object, *, folder: Path, **options: object) -> None:
        assert folder.is_dir() and not any(folder.iterdir())
        (folder / "left").touch()
        FakePlanning.asked = {"config": config, "folder": folder, **options}

    def run(self):
        if self.error:
            raise self.error
        return PLAN

    def foretell(self) -> Foretold:
        return Foretold(device=CPU, budget_bytes=1, clips_per_step=2, candidates=())


@pytest.fixture(autouse=True)
def planning(monkeypatch: pytest.MonkeyPatch) -> type[FakePlanning]:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(module, "Planner", FakePlanning)
    return FakePlanning


def test_writes_a_plan_and_leaves_nothing_else(tmp_path: Path, planning: type[FakePlanning]) -> None:
    out = tmp_path / "new" / "plan.json"
    assert plan(PLAN.config, out, clips=8, memory_gb=2.0) == PLAN == read_plan(out)
    assert (planning.asked["clips"], planning.asked["memory_gb"]) == (8, 2.0)
    assert planning.asked["folder"].parent == out.parent
    assert list(out.parent.iterdir()) == [out]


def test_leaves_nothing_when_it_fails(
    tmp_path: Path, planning: type[FakePlanning], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "error", TrainingError("nothing fits"))
    with pytest.raises(TrainingError):
        plan(PLAN.config, tmp_path / "plan.json")
    assert not any(tmp_path.iterdir())


def test_replaces_a_plan_only_when_told_to(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    out.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        plan(PLAN.config, out)
    assert out.read_text() == "mine"
    plan(PLAN.config, out, overwrite=True)
    assert read_plan(out) == PLAN


def test_foretells_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert foretell(PLAN.config).clips_per_step == 2
    assert not any(tmp_path.iterdir())


def test_is_made_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for start in (lambda: plan(PLAN.config, tmp_path / "plan.json"), lambda: foretell(PLAN.config)):
        with pytest.raises(UsageError, match="one process"):
            start()
