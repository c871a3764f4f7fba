"""What `spk inspect` tells about a run folder and about a checkpoint, from what training left there."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint import CheckpointFolder, read_info
from model.checkpoint_file import SUFFIX, read_header
from model.training.metrics_file import read_metrics
from model.training.session import is_running
from pipeline.errors import CheckpointError, SpkError
from pipeline.store import open_store
from pipeline.yaml_files import read_yaml

CURVE_POINTS = 60
MOST_ANCESTORS = 10


def run_facts(run: Path) -> dict[str, Any]:
    """How far a run is and how it stands, how good it was found, what it was started with, what it left.

    It can be asked at any time, of a run that is at work, was killed or has damaged files: what is not known is None,
    and `problems` names the files that are damaged, each with what is wrong.
    """
    problems: list[str] = []
    about, sessions = _read_about(run / "run.json", problems)
    config = _read_config(run / "config.yaml", problems)
    metrics = read_metrics(run / "metrics.jsonl")
    if metrics.damaged:
        numbers = ", ".join(map(str, metrics.damaged))
        problems.append(f"{run / 'metrics.jsonl'}: damaged in line {numbers}")
    lines, validations = metrics.of_steps(), metrics.of_validations()
    checkpoints = list(_checkpoints(run / "checkpoints", problems))
    whole = [one for one in checkpoints if one["whole"] and one["name"] != "best"]
    last = max(whole, key=lambda one: one["step"], default={"step": 0, "best": None})
    best = last["best"] or max(
        ({"step": line["step"], "val_psnr": line["val_psnr"]} for line in validations if line["val_psnr"]),
        key=lambda one: one["val_psnr"],
        default={},
    )
    newest = lines[-1] if lines else {}
    logged = max((line["step"] for line in metrics.lines), default=0)
    state = _state(run, sessions, logged, config.get("steps"))
    store = about.get("store") if isinstance(about.get("store"), dict) else {}
    return {
        "kind": "run",
        "run": str(run),
        "state": state,
        "error": sessions[-1].get("error") if sessions else None,
        "step": last["step"],
        "steps": config.get("steps"),
        "logged_step": logged,
        "eta_s": newest.get("eta_s") if state == "running" else None,
        "heard_s": _age_s(metrics.lines),
        "loss": newest.get("loss"),
        "lr": newest.get("lr"),
        "grad_norm": newest.get("grad_norm"),
        "samples_per_s": newest.get("samples_per_s"),
        "data_share": newest.get("data_share"),
        "epoch": newest.get("epoch"),
        "skipped": newest.get("skipped"),
        "val_psnr": validations[-1].get("val_psnr") if validations else None,
        "best_psnr": best.get("val_psnr"),
        "best_step": best.get("step"),
        "parameters": about.get("parameters"),
        "trainable": about.get("trainable"),
        "device": sessions[-1].get("device") if sessions else None,
        "sessions": len(sessions),
        "started": sessions[0].get("started") if sessions else None,
        "parent": about.get("parent"),
        "lineage": list(_lineage(about.get("parent"))),
        "store": store.get("path"),
        "store_fingerprint": store.get("fingerprint"),
        "store_now": _store_now(store),
        "checkpoints": sorted(path.stem for path in (run / "checkpoints").glob(f"*{SUFFIX}")),
        "checkpoint_list": [{key: one[key] for key in one if key != "best"} for one in checkpoints],
        "session_list": _session_list(sessions, logged),
        "curves": {
            **{key: _curve(lines, key) for key in ("loss", "grad_norm", "samples_per_s", "data_share")},
            "val_psnr": _curve(validations, "val_psnr"),
        },
        "problems": problems,
    }


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """What the header of a checkpoint says, after every byte of the file was compared with its checksum.

    Raises:
        CheckpointError: not a checkpoint, or a damaged one.
    """
    info = read_info(path)
    size = info.header.get("parameters", {})
    return {
        "kind": "checkpoint",
        "bytes": path.stat().st_size,
        "step": info.step,
        "steps": info.config.get("steps"),
        "loss": info.header.get("loss"),
        "best_psnr": (info.best or {}).get("val_psnr"),
        "best_step": (info.best or {}).get("step"),
        "parameters": size.get("total"),
        "trainable": size.get("trainable"),
        "fusion": info.config.get("network", {}).get("fusion"),
        "instants": info.config.get("network", {}).get("instants", False),
        "num_bins": info.num_bins,
        "scale": info.scale,
        "voxels": info.voxels,
        "averaged": info.averaged,
        "store": info.store.get("path"),
        "store_fingerprint": info.store.get("fingerprint"),
        "versions": dict(info.versions),
    }


def _read_about(path: Path, problems: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What run.json says, and its sessions; both empty where it cannot be read."""
    try:
        about = json.loads(path.read_bytes())
        sessions = about["sessions"]
        if not sessions or not all(isinstance(session, dict) for session in sessions):
            raise ValueError("no sessions")
        return about, sessions
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        problems.append(f"{path}: damaged: {why}; remove it and resume the run, which writes it anew")
        return {}, []


def _read_config(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        return read_yaml(path)
    except (SpkError, OSError) as error:
        problems.append(error.problem if isinstance(error, SpkError) else f"{path}: {error}")
        return {}


def _state(run: Path, sessions: Sequence[Mapping[str, Any]], logged: int, steps: int | None) -> str | None:
    """`running`, `finished`, `interrupted`, `failed`, or `killed`: ended without a word; None: nobody knows."""
    if is_running(run):
        return "running"
    if not sessions:
        return None
    if logged == steps:
        return sessions[-1].get("how") or "finished"
    return sessions[-1].get("how") or "killed"


def _age_s(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds since the last line of the metrics was written."""
    try:
        written = datetime.fromisoformat(lines[-1]["time"])
        return max((datetime.now(UTC) - written).total_seconds(), 0.0)
    except (IndexError, KeyError, ValueError, TypeError):
        return None


def _checkpoints(folder: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Each file once, by all of its names, the newest first; every byte is compared with its checksum."""
    names: dict[tuple[int, int], list[Path]] = {}
    for path in [
        *CheckpointFolder(folder).steps(),
        *(folder / f"{name}{SUFFIX}" for name in ("best", "last")),
    ]:
        if path.exists():
            names.setdefault((path.stat().st_dev, path.stat().st_ino), []).append(path)
    for paths in names.values():
        path, info, problem = paths[0], None, None
        try:
            info = read_info(path)
            at = path.stat()
        except (CheckpointError, OSError) as error:
            if not path.exists():
                continue  # a run that is at work has just dropped it
            problem, at = getattr(error, "problem", str(error)), path.stat()
            problems.append(problem)
        yield {
            "name": path.stem,
            "also": [other.stem for other in paths[1:]],
            "step": info.step if info else None,
            "bytes": at.st_size,
            "age_s": max(time.time() - at.st_mtime, 0.0),
            "whole": info is not None,
            "best": info.best if info else None,
        }


def _session_list(sessions: Sequence[Mapping[str, Any]], logged: int) -> list[dict[str, Any]]:
    """Each session: when, from which step to which, where, how it ended, and which versions had changed."""
    listed, before = [], None
    for number, session in enumerate(sessions, 1):
        now = session.get("versions") or {}
        changed = {key: [before[key], now.get(key)] for key in before or {} if before[key] != now.get(key)}
        is_last = number == len(sessions)
        listed.append(
            {
                **{key: session.get(key) for key in ("started", "from_step", "ended", "how", "error")},
                **{key: session.get(key) for key in ("device", "processes")},
                "to_step": session.get("step", logged if is_last else None),
                "versions_changed": changed,
            }
        )
        before = now
    return listed


def _lineage(parent: str | None) -> Iterator[dict[str, Any]]:
    """The checkpoint that the weights came from, the one that its run began with, and so on."""
    for _ in range(MOST_ANCESTORS):
        if not parent:
            return
        try:
            header = read_header(Path(parent))
        except CheckpointError:  # moved, or a published one
            yield {"path": parent, "step": None}
            return
        yield {"path": parent, "step": header["step"]}
        parent = (header["config"] or {}).get("init")


def _store_now(store: Mapping[str, Any]) -> str | None:
    """Whether the store is the one that was learnt from: `same`, `changed`, or `unreadable`."""
    if not store.get("path"):
        return None
    try:
        found = open_store(Path(store["path"])).fingerprint
    except (SpkError, OSError):
        return "unreadable"
    return "same" if found == store.get("fingerprint") else "changed"


def _curve(lines: Sequence[Mapping[str, Any]], key: str) -> list[list[float]]:
    """At most 60 [step, value], each the mean of as many lines; of finite values only."""
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    groups = np.array_split(np.array(points, np.float64).reshape(-1, 2), min(len(points), CURVE_POINTS) or 1)
    return [[int(group[-1, 0]), float(group[:, 1].mean())] for group in groups if len(group)]
