"""deblur.json: what a restoration was made of, kept beside it, so that it can be gone on with and be judged later."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import write_atomic
from pipeline.fingerprints import fingerprint_of

RECORD = "deblur.json"
IDENTITY = ("checkpoint", "inputs", "settings")
"""What two restorations must have in common for one to go on with the other."""


def input_facts(path: Path) -> dict[str, Any]:
    """What shows, without reading it, that a file, or a folder with its files, is still the same."""
    if not path.is_dir():
        status = path.stat()
        return {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    states = [
        (one.name, (status := one.stat()).st_size, status.st_mtime_ns)
        for one in path.iterdir()
        if one.is_file()
    ]
    return {"path": str(path.resolve()), "files": len(states), "fingerprint": fingerprint_of(sorted(states))}


def begin_video(*paths: Path, resume: bool) -> None:
    """
    Raises:
        UsageError: a video is there already, or is to be gone on with, which no video can be.
    """
    if resume:
        raise UsageError(
            f"{paths[0]}: a video cannot be gone on with", "restore to a folder, -o FOLDER, for that"
        )
    for path in paths:
        if path.exists():
            raise UsageError(f"{path}: is there already", "remove it, or choose another name with -o")


def begin_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """Whether a restoration may write into a folder; nothing is written.

    Args:
        identity: the `IDENTITY` of the restoration, as JSON values.

    Returns:
        The record of the restoration to go on with; None for a new one.

    Raises:
        UsageError: the folder holds something and `resume` is false, or is not of this restoration and it is true.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder", "choose another one with -o, or name a video: .mkv, .mp4")
    if not (folder.is_dir() and any(folder.iterdir())):
        if resume:
            raise UsageError(
                f"{folder}: nothing here to go on with", "check the folder, or start without --resume"
            )
        return None
    if not resume:
        fix = "choose another folder with -o"
        if (folder / RECORD).is_file():
            fix = "go on with what is there by adding --resume, or choose another folder with -o"
        raise UsageError(f"{folder}: not empty", fix)
    record = _read(folder / RECORD)
    differing = [
        f"{group}.{key}: {_shown(before)}, now {_shown(now)}"
        for group in IDENTITY
        for key, before, now in _differences(record.get(group), identity[group])
    ]
    if differing:
        raise UsageError(
            "\n".join([f"{folder}: was restored from something else:", *(f"  {one}" for one in differing)]),
            "choose another folder with -o",
        )
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all."""
    write_atomic(path, json.dumps(record, indent=1, allow_nan=False, default=str) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no mapping")
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent}: not the folder of spk deblur (no {RECORD})", "check the folder given with -o"
        ) from None
    except ValueError as error:
        raise UsageError(f"{path}: damaged: {error}", "remove the folder and start again") from error
    return record


def _differences(before: Any, now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    before = before if isinstance(before, dict) else {}
    now = json.loads(json.dumps(now, default=str))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [(key, before.get(key), now.get(key)) for key in keys]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
