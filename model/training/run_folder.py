"""The folder of one run: who may write into it, and what it says about where the run came from.

RUN/  config.yaml  run.json  log.txt  metrics.jsonl  tensorboard/  samples/  checkpoints/  eval/
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointFolder, CheckpointInfo
from pipeline.errors import CheckpointError, UsageError
from pipeline.files import write_atomic

logger = logging.getLogger(__name__)

FREE_KEYS = (
    *("steps", "store", "init", "workers", "parallel", "loss.vgg_weights", "keep_checkpoints"),
    *("log_every", "validate_every", "checkpoint_every", "sample_every", "validate_crop", "validate_clips"),
    "max_skipped",
    *("network.checkpoint_stages", "network.memory_gb"),
)
"""Settings that may change when a run is resumed; all others decide what it computes."""


class RunFolder:
    """A run's folder, new or to be gone on with.

    Args:
        path: the folder; made when the run begins to write.
        keep: how many checkpoints to keep.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints", keep)

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "run.json").is_file()

    def find_start(self, *, resume: bool) -> CheckpointInfo | None:
        """Where to begin: None for step 0, or the checkpoint to go on from.

        Raises:
            UsageError: the folder has a run and `resume` is false, or has none and it is true.
            CheckpointError: every checkpoint is damaged.
        """
        used = self.path.is_dir() and any(self.path.iterdir())
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: not a folder", "choose another one with -o")
        if used and not resume:
            fix = "go on with that run by adding --resume, or choose another folder with -o"
            raise UsageError(f"{self.path}: not empty", fix)
        if not resume:
            return None
        if not used:
            raise UsageError(
                f"{self.path}: no run here to resume", "check the folder, or start without --resume"
            )
        if not self.is_run:
            raise UsageError(
                f"{self.path}: not the folder of a run (no run.json)", "check the folder given with -o"
            )
        start = self.checkpoints.load_last()
        if start is None:
            logger.warning("%s: no checkpoint was saved yet; starting at step 0", self.path)
        return start

    def write_config(self, text: str) -> None:
        """Keep the resolved config as `config.yaml`."""
        write_atomic(self.path / "config.yaml", text)

    def write_session(self, facts: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Keep what is true of the run as `run.json`, and add this start of it to its `sessions`."""
        path = self.path / "run.json"
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.exists() else []
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged: {error}", "remove it and resume again") from error
        write_atomic(path, json.dumps({**facts, "sessions": [*earlier, session]}, indent=2) + "\n")


def require_same(run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the settings a checkpoint was made with and those of now.

    Args:
        then, now: nested plain values; of the keys in `FREE_KEYS` nothing is said.

    Raises:
        UsageError: some differ; all of them are named.
    """
    old, new = flatten(then), flatten(now)
    missing = "(not set)"
    changed = [
        f"  {key}: {old.get(key, missing)} in the run, {new.get(key, missing)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing) and not _is_free(key)
    ]
    if changed:
        raise UsageError(
            "\n".join([f"{run}: cannot be resumed with other settings:", *changed]),
            f"resume with {run / 'config.yaml'}, or start a new run with "
            f"init={run / 'checkpoints' / 'last.safetensors'}",
        )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        flat |= inner
    return flat


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)
