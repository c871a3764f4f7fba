"""Whether two runs did the same: every part of their last state, and every step on the way, compared by SHA-256."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import CheckpointFolder, CheckpointInfo
from model.checkpoint_file import load_tensors
from pipeline.errors import CheckpointError

_TENSORS = {"weights": "model.", "averaged weights": "ema.", "optimizer": "optimizer."}
_PLAIN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gradient scaler": lambda header: header["learner"],
    "random numbers": lambda header: header["rng"],
    "steps left out": lambda header: (header.get("skipped"), header.get("skipped_in_a_row")),
}
_LINES = {"loss of every step": "loss", "clips of every step": "clips"}
ALWAYS_EQUAL = ("random numbers", "clips of every step")
"""Parts that no kernel has a hand in: they depend on (seed, step) only, on every device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of two runs.

    Attributes:
        equal: whether all bits are.
        digests: SHA-256 of the part in either run.
        max_difference: largest difference of two numbers; None where the parts are equal or hold other things.
    """

    part: str
    equal: bool
    digests: tuple[str, str]
    max_difference: float | None

    def to_json(self) -> dict[str, Any]:
        """The part in `spk train --check-resume --json`."""
        return {
            "part": self.part,
            "equal": self.equal,
            "digest": self.digests[0],
            "other_digest": self.digests[1],
            "max_difference": self.max_difference,
        }


def compare_runs(one: Path, other: Path, steps: int) -> list[Part]:
    """Compare the checkpoints of two runs after `steps` steps, and what was logged of each step until then.

    Args:
        one, other: run folders, logged with log_every=1.

    Raises:
        CheckpointError: a run has no whole checkpoint, or its last one is of another step.
    """
    infos = [_last_of(run, steps) for run in (one, other)]
    parts = [
        _tensor_part(name, *(load_tensors(info.path, prefix) for info in infos))
        for name, prefix in _TENSORS.items()
    ]
    parts += [_part(name, *(part_of(info.header) for info in infos)) for name, part_of in _PLAIN.items()]
    for name, key in _LINES.items():
        mine, its = (_logged(run, key, steps) for run in (one, other))
        differences = [
            abs(a - b)
            for a, b in zip(mine, its, strict=True)
            if isinstance(a, float) and isinstance(b, float)
        ]
        parts.append(_part(name, mine, its, max(differences, default=None)))
    return parts


def is_same_run(parts: Sequence[Part], repeated: Sequence[Part] = ()) -> bool:
    """Whether a run is the same as another, as far as the device allows.

    Args:
        parts: of the two.
        repeated: of two runs that nothing disturbed, where that was tried: what differs between these, for the order
            in which a kernel adds, may differ there.
    """
    excused = {part.part for part in repeated if not part.equal} - set(ALWAYS_EQUAL)
    return all(part.equal or part.part in excused for part in parts)


def _last_of(run: Path, steps: int) -> CheckpointInfo:
    info = CheckpointFolder(run / "checkpoints").load_last()
    if info is None or info.step != steps:
        raise CheckpointError(
            f"{run}: its last checkpoint is of step {info.step if info else 0}, not {steps}"
        )
    return info


def _logged(run: Path, key: str, steps: int) -> list[Any]:
    """What was logged of steps 1 to `steps` under `key`.

    Raises:
        CheckpointError: a step was not logged, or more than once.
    """
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = [(line["step"], line[key]) for line in lines if key in line and line["step"] <= steps]
    if [step for step, _ in found] != list(range(1, steps + 1)):
        raise CheckpointError(
            f"{run}: not every step from 1 to {steps} is in metrics.jsonl once", "train it with log_every=1"
        )
    return [value for _, value in found]


def _part(name: str, one: Any, other: Any, max_difference: float | None = None) -> Part:
    digests = [
        hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() for value in (one, other)
    ]
    equal = digests[0] == digests[1]
    return Part(
        part=name,
        equal=equal,
        digests=(digests[0], digests[1]),
        max_difference=None if equal else max_difference,
    )


def _tensor_part(name: str, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Part:
    digests = tensors_digest(one), tensors_digest(other)
    equal = digests[0] == digests[1]
    return Part(
        part=name, equal=equal, digests=digests, max_difference=None if equal else _max_difference(one, other)
    )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors on the CPU: of their names, types, shapes and bytes, whatever their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _max_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    if {name: tensor.shape for name, tensor in one.items()} != {
        name: tensor.shape for name, tensor in other.items()
    }:
        return None
    return max(
        float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel()
    )
