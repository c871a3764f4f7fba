"""What a stage hands back: how much was done, what was set aside, how far along it is."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.storage.places import shown

MAX_LISTED = 8
"""Inputs named in one message; the rest are counted."""
Progress = Callable[[int, int, str], None]
"""Called with (pieces done, pieces in all, what is being done) whenever a piece is finished."""


def no_progress(done: int, total: int, what: str) -> None:
    """The `Progress` of callers who do not watch."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An input that was set aside instead of used: where it is and why."""

    path: str
    reason: str


def listed(problems: Sequence[Quarantined]) -> str:
    """The inputs set aside for a message, a line each; of many the first ones."""
    lines = [f"{problem.path}: {problem.reason}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """What `ingest` or `voxelize` did, or with `dry_run` would do.

    Attributes:
        written, skipped: shards written now, and shards found finished.
        num_bytes: uncompressed bytes of the shards written.
    """

    store: Path
    sequences: int
    frames: int
    written: int
    skipped: int
    num_bytes: int
    quarantined: tuple[Quarantined, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object of the two stages."""
        values = asdict(self) | {
            "store": shown(self.store),
            "quarantined": [asdict(q) for q in self.quarantined],
        }
        values["bytes"] = values.pop("num_bytes")
        return values
