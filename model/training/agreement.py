"""Before the first step: whether every process is ready, and means the same run as the others."""

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from model.checkpoint import CheckpointInfo
from model.parallel import Parallel
from model.training.config import TrainConfig
from model.training.run_folder import flatten
from pipeline.config import to_plain
from pipeline.errors import SpkError, UsageError
from pipeline.store import Store

OWN_KEYS = ("store", "init", "loss.vgg_weights", "workers", "parallel.device")
"""Settings that may differ between processes: places on disks of their own, and what they compute with."""

_MISSING = "(not set)"


class _Report(NamedTuple):
    """What a process says of itself: where it is, what it is about to do, or what is wrong."""

    host: str
    facts: dict[str, Any]
    problem: str = ""
    fix: str = ""


@contextlib.contextmanager
def agreed(place: Parallel) -> Iterator[dict[str, Any]]:
    """Prepare inside, in every process; go on if all of them could, and gave the same facts.

    Nothing inside may wait for another process.

    Yields:
        The facts, to be filled in: plain values by name.

    Raises:
        UsageError: another process failed, or its facts are others; it is named.
    """
    facts: dict[str, Any] = {}
    host = socket.gethostname()
    try:
        yield facts
    except SpkError as error:
        place.gather(_Report(host, {}, error.problem, error.fix))
        raise
    reports = place.gather(_Report(host, facts))
    for rank, report in enumerate(reports):
        if report.problem:
            raise UsageError(f"process {rank} on {report.host}: {report.problem}", report.fix)
    for rank, report in enumerate(reports):
        _require_same(reports[0], report, rank)


def run_in_common(
    config: TrainConfig, store: Store, start: CheckpointInfo | None, stop_at: int | None
) -> dict[str, Any]:
    """What all processes of a run must agree on, as `agreed` compares it."""
    settings = {key: value for key, value in flatten(to_plain(config)).items() if key not in OWN_KEYS}
    weights = {"init": config.init, "loss.vgg_weights": config.loss.vgg_weights}
    return {
        **settings,
        **{f"content of {key}": _digest(path) for key, path in weights.items() if path and path.is_file()},
        "store fingerprint": store.fingerprint,
        "checkpoint": f"step {start.step}, {start.header['digest']}" if start else "none",
        "last step of this session": stop_at,
        "torch": torch.__version__,
    }


def _require_same(first: _Report, other: _Report, rank: int) -> None:
    different = [
        f"  {key}: {first.facts.get(key, _MISSING)} in process 0 on {first.host}, "
        f"{other.facts.get(key, _MISSING)} in process {rank} on {other.host}"
        for key in first.facts | other.facts
        if first.facts.get(key, _MISSING) != other.facts.get(key, _MISSING)
    ]
    if different:
        raise UsageError(
            "\n".join(["the processes were not started for the same run:", *different]),
            "give all of them the same config, a run folder that they share, and the same store or exact copies of it",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
