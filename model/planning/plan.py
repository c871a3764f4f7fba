"""A plan of a training run: settings that were measured on a device, and what is to be expected of them.

The file is JSON, made to be read by people too; `spk train plan.json` takes it in place of a config.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoint import versions
from model.planning.device import Device, device_of
from model.training.config import TrainConfig
from pipeline.config import apply_overrides, build, to_plain
from pipeline.errors import ConfigError
from pipeline.files import write_atomic
from pipeline.store import open_store

logger = logging.getLogger(__name__)

FORMAT = 1
SUFFIX = ".json"
_MEASURED = ("batch_size", "clip", "network", "loss", "optim", "parallel", "phases", "steps")
"""Settings that the figures of a plan depend on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a step costs, as the mean over a run, or the worst of its stretches.

    Attributes:
        step_s: mean seconds, with the wait for clips.
        data_share: the part of them that is spent waiting for clips.
        peak_bytes: the most memory.
    """

    step_s: float
    data_share: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStretch:
    """Steps [start, stop) that cost the same, and the measured seconds of each."""

    start: int
    stop: int
    num_frames: int
    crop: int
    clips: int
    flow_frozen: bool
    step_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """What the whole run takes, from what was measured of its parts.

    Attributes:
        seconds: with all validations and checkpoints, without interruptions.
        checkpoints: most that are written.
        disk_bytes: of the checkpoints that are kept at the same time.
    """

    seconds: float
    start_s: float
    validations: int
    validation_s: float
    checkpoints: int
    checkpoint_s: float
    checkpoint_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A way to take a step's clips that was considered, and what became of it.

    Attributes:
        measured_bytes, step_s: None where it was not tried, or ran out of memory.
    """

    batch_size: int
    accumulate: int
    crop: int
    checkpoint_stages: tuple[int, ...]
    extra_flops: float
    predicted_bytes: int
    measured_bytes: int | None
    step_s: float | None
    verdict: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFacts:
    """The store that clips were read from."""

    path: str
    fingerprint: str
    clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A plan; the file holds these fields.

    Attributes:
        made: when, as ISO 8601.
        free_bytes: memory of the device when the plan was made.
        budget_bytes: of it, to be used.
        clips_per_step: of one process.
        predicted: by the search, before the chosen setting was checked.
        measured: with the chosen setting as it will run.
        notes: what differs from the config that was given, or may surprise.
    """

    made: str
    config: TrainConfig
    device: Device
    free_bytes: int
    budget_bytes: int
    clips_per_step: int
    predicted: Outlook
    measured: Outlook
    stretches: tuple[PlannedStretch, ...]
    run: PlannedRun
    candidates: tuple[Considered, ...]
    notes: tuple[str, ...]
    store: StoreFacts
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {"kind": "plan", "format": FORMAT, **to_plain(self)}


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan, whole or not at all."""
    write_atomic(path, json.dumps(plan.to_json(), indent=2) + "\n")


def read_plan(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a plan.

    Args:
        overrides: `dotted.key=value` changes to its config.

    Raises:
        ConfigError: no plan of this program, damaged, or of a newer format; or the overrides are wrong.
    """
    again = "make it again with `spk plan`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a plan: {error}", again) from error
    if not isinstance(values, dict) or values.pop("kind", None) != "plan":
        raise ConfigError(f"{path}: not a plan", "give a plan.json that `spk plan` wrote, or a .yaml config")
    if (found := values.pop("format", None)) != FORMAT:
        raise ConfigError(f"{path}: a plan of format {found}, and this program reads format {FORMAT}", again)
    config = values.get("config")
    if isinstance(config, dict):
        values["config"] = apply_overrides(config, overrides)
    return build(Plan, values, f"{path}" + (f" with {' '.join(overrides)}" if overrides else ""))


def settings_of(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The config of a plan that is to be trained here and now, with warnings where its figures may not hold.

    Raises:
        ConfigError: as `read_plan`; or the device is of another kind, or has less memory than the plan needs.
        StoreError: the store cannot be opened.
    """
    plan = read_plan(path, overrides)
    here = device_of(plan.config.parallel.device)
    again = f"make one for this machine: spk plan {plan.store.path} CONFIG"
    if here.kind != plan.device.kind:
        raise ConfigError(f"{path}: planned for {plan.device.name}, and here is {here.name}", again)
    if here.total_bytes < plan.measured.peak_bytes:
        raise ConfigError(
            f"{path}: needs {plan.measured.peak_bytes / 1e9:.1f} GB, and {here.name} has"
            f" {here.total_bytes / 1e9:.1f} GB",
            again,
        )
    store = open_store(plan.config.store)
    for problem in _differences(plan, here, store.fingerprint, overrides):
        logger.warning("%s: %s; its figures may not hold", path, problem)
    return plan.config


def _differences(plan: Plan, here: Device, fingerprint: str, overrides: Sequence[str]) -> list[str]:
    """Why the figures of a plan may not hold."""
    found = []
    if here.name != plan.device.name:
        found.append(f"planned for {plan.device.name}, and here is {here.name}")
    if fingerprint != plan.store.fingerprint:
        found.append(f"planned with another state of the store, {plan.store.path}")
    if (now := versions()["torch"]) != (then := plan.versions.get("torch")):
        found.append(f"planned with torch {then}, and this is torch {now}")
    keys = [override.partition("=")[0] for override in overrides]
    if changed := [key for key in keys if key.partition(".")[0] in _MEASURED]:
        found.append(f"planned with another {', '.join(changed)}")
    return found
