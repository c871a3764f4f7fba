"""The file that a step leaves when it ends a run: its batches, and what is known about them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import contiguous_format

from pipeline.clips import Sample
from pipeline.errors import CheckpointError
from pipeline.files import write_atomic

_KEY = "spk_failed_step"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedStep:
    """One process's part of a step that failed.

    Attributes:
        step: from 0.
        batches: uint8 (a batch of voxels may be uint16), in the order of the step.
        report: plain values: `clips`, as `StepClips.of_process` gives them, and `diagnosis`, as `Diagnosis.to_json`.
    """

    step: int
    batches: tuple[Sample, ...]
    report: Mapping[str, Any]


def write_failed_step(path: Path, failed: FailedStep) -> None:
    """Write it as safetensors, `0.blurry` `0.voxels` `0.sharp` `0.instants` `1.blurry` …, whole or not at all.

    Raises:
        OSError: the disk is full or fails.
    """
    tensors = {
        f"{i}.{name}": part.cpu().clone(memory_format=contiguous_format)
        for i, sample in enumerate(failed.batches)
        for name, part in zip(Sample._fields, sample, strict=True)
    }
    about = {"step": failed.step, "batches": len(failed.batches), **failed.report}
    write_atomic(path, save(tensors, metadata={_KEY: json.dumps(about, allow_nan=False)}))


def read_failed_step(path: Path) -> FailedStep:
    """Read it again: `diagnose(learner, failed.step, failed.batches)` looks at it once more.

    Raises:
        CheckpointError: no such file, damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            step, number = about.pop("step"), about.pop("batches")
            there = set(file.keys())  # instants came later than the others
            fields = [name for name in Sample._fields if name != "instants" or "0.instants" in there]
            batches = tuple(
                Sample(**{name: file.get_tensor(f"{i}.{name}") for name in fields}) for i in range(number)
            )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged, or not the clips of a failed step: {error!r}") from error
    return FailedStep(step=step, batches=batches, report=about)


def failed_step_path(run: Path, step: int, rank: int, world: int) -> Path:
    """Where process `rank` writes step `step` (from 0); steps are counted from 1 in names."""
    process = f"_process_{rank}" if world > 1 else ""
    return run / f"failed_step_{step + 1:06d}{process}.safetensors"
