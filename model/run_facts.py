"""What `spk inspect` tells about a run folder and about a checkpoint, from what training left there."""

import json
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointFolder, read_info
from model.checkpoint_file import SUFFIX
from pipeline.errors import CheckpointError
from pipeline.yaml_files import read_yaml


def run_facts(run: Path) -> dict[str, Any]:
    """How far a run is, how good it was found, how large its network is, where it comes from.

    What a run that was stopped early has not written yet is None.

    Raises:
        CheckpointError: run.json or metrics.jsonl cannot be read, or all checkpoints are damaged.
        ConfigError: config.yaml cannot be read.
    """
    about = _read_about(run / "run.json")
    last = CheckpointFolder(run / "checkpoints").load_last()
    lines = _metrics(run / "metrics.jsonl")
    best = (last.best if last else None) or {}
    return {
        "kind": "run",
        "run": str(run),
        "step": last.step if last else 0,
        "steps": read_yaml(run / "config.yaml").get("steps"),
        "loss": _last(lines, "loss"),
        "val_psnr": _last(lines, "val_psnr"),
        "best_psnr": best.get("val_psnr"),
        "best_step": best.get("step"),
        "parameters": about.get("parameters"),
        "trainable": about.get("trainable"),
        "device": about["sessions"][-1].get("device"),
        "sessions": len(about["sessions"]),
        "started": about["sessions"][0].get("started"),
        "parent": about.get("parent"),
        "store": about["store"].get("path"),
        "store_fingerprint": about["store"].get("fingerprint"),
        "checkpoints": sorted(path.stem for path in (run / "checkpoints").glob(f"*{SUFFIX}")),
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
        "num_bins": info.num_bins,
        "scale": info.scale,
        "voxels": info.voxels,
        "averaged": info.averaged,
        "store": info.store.get("path"),
        "store_fingerprint": info.store.get("fingerprint"),
        "versions": dict(info.versions),
    }


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        if not about["sessions"] or not isinstance(about["store"], dict):
            raise ValueError("no sessions, or no store")
        return dict(about)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "resume the run after removing it, and it is written anew"
        raise CheckpointError(f"{path}: damaged: {type(error).__name__}: {error}", fix) from error


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The lines logged so far, the newest first; one that a killed process left unfinished is passed over."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in reversed(whole)]
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}", "remove it: only the curves are lost") from error


def _last(lines: list[dict[str, Any]], key: str) -> Any:
    return next((line[key] for line in lines if key in line), None)
