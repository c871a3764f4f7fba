"""Scores of single frames, read back from what an evaluation wrote."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

FILE = "per_frame.csv"
_KEYS = ("protocol", "split", "sequence", "frame", "index", "method")
_DEFAULT = "rgb8-all"
_EVALUATE = "spk evaluate RUN STORE"

Frame = tuple[str, str]
"""A sequence, and the name of a frame of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFrames:
    """One method's values of one metric.

    Attributes:
        path: the per_frame.csv.
        protocol, split, method, metric: what the values are.
        values: by frame, in order of time within a sequence; `inf` where a PSNR is, NaN where not defined.
        summary: what summary.json beside it says; empty without one.
    """

    path: Path
    protocol: str
    split: str
    method: str
    metric: str
    values: Mapping[Frame, float]
    summary: Mapping[str, Any]

    @property
    def fingerprint(self) -> str | None:
        """Of the store that was evaluated on, if that is known."""
        return self.summary.get("store", {}).get("fingerprint")

    @property
    def network(self) -> Mapping[str, Any]:
        """What is known of the network: checkpoint, step, digest; empty for a method without one."""
        return self.summary.get("networks", {}).get(self.method, {})


def find_scores(path: Path, protocol: str | None = None) -> dict[str, Path]:
    """The per_frame.csv files of a run folder, of its `eval`, of one protocol's folder there, or that file itself.

    Returns:
        by protocol, as folders are called, but by "" where the file or its very folder was given.

    Raises:
        UsageError: there are none.
    """
    if path.is_file():
        return {"": path}
    if (path / FILE).is_file():
        return {"": path / FILE}
    for folder in (path / "eval", path):
        if found := {file.parent.name: file for file in sorted(folder.glob(f"*/{FILE}"))}:
            return found
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder", "give a run folder, or its eval folder")
    raise UsageError(f"{path}: holds no {FILE} of an evaluation", f"make one: {_EVALUATE}")


def choose_protocol(found: tuple[Mapping[str, Path], Mapping[str, Path]], wanted: str | None) -> str | None:
    """The protocol to compare by: the one wanted, else the only one that both sides have, else rgb8-all.

    None where a file was given on both sides, which says itself of which protocol it is.

    Raises:
        UsageError: a side lacks it, or it is not clear.
    """
    sides = [set(side) for side in found if "" not in side]
    if wanted is None and not sides:
        return None
    shared = set.intersection(*sides) if sides else {wanted}
    listed = " and ".join(", ".join(sorted(side)) for side in sides)
    if wanted is None and len(shared) > 1 and _DEFAULT not in shared:
        raise UsageError(f"several protocols: {', '.join(sorted(shared))}", "--protocol one of them")
    chosen = wanted or (next(iter(shared)) if len(shared) == 1 else _DEFAULT)
    if chosen not in shared:
        what = f"not both were evaluated by protocol {wanted}" if wanted else "no protocol that both have"
        raise UsageError(f"{what}; there are {listed}", f"{_EVALUATE} --protocol {chosen}")
    return chosen


def read_scores(path: Path, *, protocol: str | None, method: str, metric: str) -> ScoredFrames:
    """Read the values of one method and metric.

    Args:
        path: a per_frame.csv; columns that are not asked for are not looked at.
        protocol: None takes the file's own.

    Raises:
        UsageError: not such a file, damaged, or without the protocol, method or metric.
    """
    rows = _rows(path, metric)
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    wanted = protocols[0] if protocol is None and len(protocols) == 1 else protocol
    if wanted not in protocols:
        problem = "no protocol" if wanted is None else f"protocol {wanted} is not"
        raise UsageError(
            f"{path}: {problem} among {', '.join(protocols) or 'its rows'}", "--protocol one of them"
        )
    rows = [row for row in rows if row["protocol"] == wanted]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if method not in methods:
        raise UsageError(
            f"{path}: no method {method!r}; there are {', '.join(methods)}", "--method one of them"
        )
    rows = [row for row in rows if row["method"] == method]
    splits = sorted({row["split"] for row in rows})
    if len(splits) != 1:
        raise UsageError(f"{path}: holds frames of the splits {', '.join(splits)}", "compare one at a time")
    return ScoredFrames(
        path=path,
        protocol=wanted,
        split=splits[0],
        method=method,
        metric=metric,
        values=_values(path, rows, metric),
        summary=_summary(path.with_name("summary.json")),
    )


def _rows(path: Path, metric: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            lacking = [name for name in _KEYS if name not in columns]
            if lacking:
                raise UsageError(
                    f"{path}: not an evaluation's {FILE}: no column {', '.join(lacking)}", _EVALUATE
                )
            if metric in _KEYS or metric not in columns:
                there = ", ".join(name for name in columns if name not in _KEYS)
                raise UsageError(f"{path}: no metric {metric!r}; there are {there}", "--metric one of them")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UsageError(
                        f"{path}:{reader.line_num}: not {len(columns)} cells", f"again: {_EVALUATE}"
                    )
                rows.append(row | {"": str(reader.line_num)})
            return rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a table: {error}", f"again: {_EVALUATE}") from error


def _values(path: Path, rows: list[dict[str, str]], metric: str) -> dict[Frame, float]:
    found: dict[Frame, tuple[int, float]] = {}
    for row in rows:
        frame = row["sequence"], row["frame"]
        try:
            index, value = int(row["index"]), float(row[metric] or math.nan)
        except ValueError as error:
            raise UsageError(f"{path}:{row['']}: {error}", f"again: {_EVALUATE}") from error
        if frame in found:
            raise UsageError(f"{path}:{row['']}: {'/'.join(frame)} is there twice", f"again: {_EVALUATE}")
        found[frame] = index, value
    ordered = sorted(found.items(), key=lambda item: (item[0][0], item[1][0]))
    return {frame: value for frame, (_, value) in ordered}


def _summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(part, dict) for part in (summary, summary["store"], summary["networks"])):
            raise TypeError("not of an evaluation")
        return summary
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read: {error!r}", f"again: {_EVALUATE}") from error
