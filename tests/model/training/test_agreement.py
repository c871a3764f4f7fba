import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from model.parallel import Parallel, ParallelConfig, parallel
from model.training.agreement import agreed, run_in_common
from model.training.config import TrainConfig
from pipeline.errors import StoreError, UsageError
from tests.ranks import ranks

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "same": ({"seed": 1}, {"seed": 1}),
    "value": ({"seed": 1, "steps": 5}, {"seed": 2, "steps": 5}),
    "missing": ({"seed": 1}, {}),
}


def meet() -> str:
    """What comes of each case, and of an error in process 1."""
    said = []
    with parallel(ParallelConfig(device="cpu")) as place:
        for name, cases in CASES.items():
            with said_of(said, name), agreed(place) as facts:
                facts |= cases[place.rank]
        with said_of(said, "error"), agreed(place):
            if place.rank == 1:
                raise StoreError("no store here", "make one")
    return "\n".join(said)


@contextlib.contextmanager
def said_of(said: list[str], name: str) -> Any:
    try:
        yield
        said.append(f"{name}: agreed")
    except (UsageError, StoreError) as error:
        said.append(f"{name}: {type(error).__name__} {error}".replace("\n", " | "))


def test_processes_go_on_together_or_not_at_all(tmp_path: Path) -> None:
    with ranks(tmp_path, meet) as workers:
        assert workers.wait(60) == [0, 0], (workers.said(0), workers.said(1))
    first, second = (workers.said(rank).splitlines() for rank in range(2))
    assert first[:3] == second[:3]
    same, value, missing, error = first
    assert same == "same: agreed"
    assert "UsageError" in value and "steps" not in value
    assert "seed: 1 in process 0 on " in value and ", 2 in process 1 on " in value
    assert "seed: 1 in process 0 on " in missing and "(not set) in process 1" in missing
    assert error.startswith("error: UsageError process 1 on ") and "no store here | fix: make one" in error
    assert second[3] == "error: StoreError no store here | fix: make one"


def test_one_process_agrees_with_itself_and_keeps_its_errors() -> None:
    place = Parallel(device=torch.device("cpu"))
    with agreed(place) as facts:
        facts["seed"] = 1
    with pytest.raises(StoreError, match="mine"), agreed(place):
        raise StoreError("mine")


def test_what_must_be_common_leaves_out_where_files_lie_but_not_what_they_hold(tmp_path: Path) -> None:
    store = type("Store", (), {"fingerprint": "f1"})()
    config = TrainConfig(store=tmp_path / "a", init=tmp_path / "one.pth", workers=1)
    moved = dataclasses.replace(config, store=tmp_path / "b", init=tmp_path / "two.pth", workers=9)
    for path, content in ((config.init, b"weights"), (moved.init, b"weights")):
        path.write_bytes(content)
    here, there = (run_in_common(each, store, None, None) for each in (config, moved))
    assert here == there and here["store fingerprint"] == "f1" and here["checkpoint"] == "none"
    moved.init.write_bytes(b"others")
    assert run_in_common(moved, store, None, None) != here
    assert run_in_common(dataclasses.replace(config, steps=9), store, None, None) != here
