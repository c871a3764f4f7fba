import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import CheckpointFolder
from model.training.same_run import Part, compare_runs, is_same_run, tensors_digest
from pipeline.errors import CheckpointError

PARTS = [
    *("weights", "averaged weights", "optimizer", "gradient scaler", "random numbers", "steps left out"),
    *("loss of every step", "clips of every step"),
]


def tensors() -> dict[str, Tensor]:
    names = ("model.a", "ema.a", "optimizer.exp_avg.a")
    return {name: torch.arange(4.0) + place for place, name in enumerate(names)}


def header() -> dict[str, object]:
    plain = {"learner": {"scaler": {"scale": 2.0}}, "rng": {"seed": 1, "state": "f00d"}, "skipped": 1}
    return {"step": 3, "config": {}, "num_bins": 4} | plain


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A run of three steps."""
    run = tmp_path / "one"
    CheckpointFolder(run / "checkpoints").save(tensors(), header(), best=False)
    lines = [{"step": step, "loss": 0.1 * step, "clips": f"c{step}"} for step in (1, 2, 3)]
    lines.insert(1, {"step": 1, "val_psnr": 30.0})
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return run


@pytest.fixture
def other(one: Path) -> Path:
    """The same run somewhere else."""
    return Path(shutil.copytree(one, one.with_name("other")))


def different(parts: list[Part]) -> list[str]:
    return [part.part for part in parts if not part.equal]


def test_a_run_is_the_same_as_itself_in_every_part(one: Path, other: Path) -> None:
    parts = compare_runs(one, other, 3)
    assert [part.part for part in parts] == PARTS and not different(parts)
    assert all(part.digests[0] == part.digests[1] and len(part.digests[0]) == 64 for part in parts)
    assert is_same_run(parts)


@pytest.mark.parametrize(
    ("name", "part"), zip(("model.a", "ema.a", "optimizer.exp_avg.a"), PARTS[:3], strict=True)
)
def test_the_last_bit_of_one_number_is_a_difference(one: Path, other: Path, name: str, part: str) -> None:
    changed = tensors()
    changed[name][2] = torch.nextafter(changed[name][2], torch.tensor(9.0))
    CheckpointFolder(other / "checkpoints").save(changed, header(), best=False)
    parts = compare_runs(one, other, 3)
    assert different(parts) == [part] and not is_same_run(parts)
    (found,) = (found for found in parts if not found.equal)
    assert 0 < found.max_difference < 1e-6


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"learner": {"scaler": {"scale": 1.0}}}, "gradient scaler"),
        ({"rng": {"seed": 1, "state": "beef"}}, "random numbers"),
        ({"skipped": 0}, "steps left out"),
    ],
)
def test_what_is_no_tensor_is_compared_as_well(one: Path, other: Path, changes: dict, part: str) -> None:
    CheckpointFolder(other / "checkpoints").save(tensors(), header() | changes, best=False)
    assert different(compare_runs(one, other, 3)) == [part]


@pytest.mark.parametrize(
    ("then", "now", "part", "by"),
    [("0.2,", "0.25,", "loss of every step", 0.05), ('"c2"', '"c1"', "clips of every step", None)],
)
def test_one_step_is_a_difference(one: Path, other: Path, then: str, now: str, part: str, by: float) -> None:
    path = other / "metrics.jsonl"
    path.write_text(path.read_text().replace(then, now))
    (found,) = (found for found in compare_runs(one, other, 3) if not found.equal)
    assert found.part == part and found.max_difference == (by and pytest.approx(by))


@pytest.mark.parametrize("lines", [[1, 3], [1, 2, 2, 3]])
def test_every_step_must_be_logged_once(one: Path, other: Path, lines: list[int]) -> None:
    text = "".join(json.dumps({"step": step, "loss": 0.1, "clips": "c"}) + "\n" for step in lines)
    (other / "metrics.jsonl").write_text(text)
    with pytest.raises(CheckpointError, match="not every step from 1 to 3"):
        compare_runs(one, other, 3)


def test_both_must_have_come_to_the_step(one: Path, other: Path) -> None:
    with pytest.raises(CheckpointError, match="its last checkpoint is of step 3, not 4"):
        compare_runs(one, other, 4)


def test_what_differs_between_undisturbed_runs_is_excused_but_for_clips_and_random_numbers() -> None:
    def part(name: str, equal: bool) -> Part:
        return Part(part=name, equal=equal, digests=("a", "a" if equal else "b"), max_difference=None)

    weights, clips = part("weights", False), part("clips of every step", False)
    assert not is_same_run([weights]) and is_same_run([weights], [weights])
    assert not is_same_run([weights], [part("weights", True)])
    assert not is_same_run([clips], [clips])


def test_a_digest_is_of_names_types_and_shapes_too() -> None:
    base = {"a": torch.zeros(4), "b": torch.tensor(1.0)}
    assert tensors_digest(base) == tensors_digest(dict(reversed(base.items())))
    others = [
        {"c": torch.zeros(4), "b": base["b"]},
        base | {"a": torch.zeros(4, dtype=torch.int32)},
        base | {"a": torch.zeros(2, 2)},
    ]
    assert len({tensors_digest(tensors) for tensors in (base, *others)}) == 4
