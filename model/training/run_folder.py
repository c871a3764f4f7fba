"""The folder of one run: who may write into it, and what it says about where the run came from.

RUN/  config.yaml  run.json  log.txt  metrics.jsonl  progress.png  tensorboard/  samples/  checkpoints/  eval/
"""

import contextlib
import errno
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointFolder, CheckpointInfo
from pipeline.errors import CheckpointError, TrainingError, UsageError
from pipeline.files import remove_partial, write_atomic
from pipeline.storage.lock import hold_lock

logger = logging.getLogger(__name__)

FREE_KEYS = (
    *("steps", "store", "init", "workers", "parallel", "loss.vgg_weights"),
    *("keep_checkpoints", "keep_every"),
    *("log_every", "validate_every", "checkpoint_every", "sample_every", "validate_crop", "validate_clips"),
    *("sample_clips", "histogram_every", "max_skipped"),
    *("network.checkpoint_stages", "network.memory_gb"),
)
"""Settings that may change when a run is resumed; all others decide what it computes."""

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that knows no locks."""


class RunFolder:
    """A run's folder, new or to be gone on with.

    Args:
        path: the folder; made when the run begins to write.
        keep: how many checkpoints to keep.
        keep_every: keep those of every so many steps for ever; 0 keeps none so.
    """

    def __init__(self, path: Path, keep: int = 2, keep_every: int = 0) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints", keep, keep_every)

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "run.json").is_file() or bool(self.checkpoints.steps())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only training in this folder, for the time of a `with` block; the lock dies with the process.

        Raises:
            TrainingError: another process trains here; it says which.
            UsageError: a file is where the folder should be.
        """
        self._refuse_file()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self.path / LOCK, self.path, error=TrainingError))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.warning("%s: no lock on this file system: let nothing else train here", self.path)
            yield

    def tidy(self, start: CheckpointInfo | None, best: CheckpointInfo | None) -> None:
        """Remove what a killed session left half written, and name `start` and `best` so; under the lock only."""
        for folder in (self.path, self.path / "samples"):
            remove_partial(folder)
        self.checkpoints.mend(start, best)

    def _refuse_file(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: not a folder", "choose another one with -o")

    def check(self, *, resume: bool) -> None:
        """Whether a run can begin here, or one be gone on with; nothing is written, not even a lock.

        Raises:
            UsageError: the folder has a run and `resume` is false, or has none and it is true.
        """
        self._refuse_file()
        used = self.path.is_dir() and any(entry.name != LOCK for entry in self.path.iterdir())
        if used and not resume:
            fix = "go on with that run by adding --resume, or choose another folder with -o"
            raise UsageError(f"{self.path}: not empty", fix)
        if resume and not used:
            raise UsageError(
                f"{self.path}: no run here to resume", "check the folder, or start without --resume"
            )
        if resume and not self.is_run:
            raise UsageError(
                f"{self.path}: not the folder of a run (no run.json)", "check the folder given with -o"
            )

    def find_start(self, *, resume: bool) -> CheckpointInfo | None:
        """Where to begin: None for step 0, or the checkpoint to go on from.

        Raises:
            UsageError: as `check`.
            CheckpointError: every checkpoint is damaged.
        """
        self.check(resume=resume)
        if not resume:
            return None
        if not (self.path / "run.json").is_file():
            logger.warning("%s: run.json is gone, and with it what it said of earlier sessions", self.path)
        start = self.checkpoints.load_last()
        if start is None:
            logger.warning("%s: no checkpoint was saved yet; starting at step 0", self.path)
        return start

    def write_config(self, text: str) -> None:
        """Keep the resolved config as `config.yaml`."""
        write_atomic(self.path / "config.yaml", text)

    def write_session(self, facts: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Keep what is true of the run as `run.json`, and add this start of it to its `sessions`."""
        earlier = self._read_about()["sessions"] if self.is_run else []
        self._write_about({**facts, "sessions": [*earlier, session]})

    def end_session(self, facts: Mapping[str, Any]) -> None:
        """Add to the newest session of `run.json` how it ended."""
        about = self._read_about()
        *earlier, newest = about["sessions"]
        self._write_about({**about, "sessions": [*earlier, {**newest, **facts}]})

    def _read_about(self) -> dict[str, Any]:
        path = self.path / "run.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            about["sessions"] = list(about["sessions"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged: {error}", "remove it and resume again") from error
        return dict(about)

    def _write_about(self, about: Mapping[str, Any]) -> None:
        write_atomic(self.path / "run.json", json.dumps(about, indent=2) + "\n")


def require_same(run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the settings a checkpoint was made with and those of now.

    Args:
        then, now: nested plain values; those of the keys in `FREE_KEYS` may differ, and what does is logged.

    Raises:
        UsageError: some differ; all of them are named.
    """
    old, new = flatten(then), flatten(now)
    missing = "(not set)"
    differing = {
        key: f"{key}: {old.get(key, missing)} in the run, {new.get(key, missing)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    }
    for key, change in differing.items():
        if _is_free(key):
            logger.info("changed setting: %s", change)
    if changed := [f"  {change}" for key, change in differing.items() if not _is_free(key)]:
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
