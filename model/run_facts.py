"""What `spk inspect RUN` tells about a run folder."""

import json
from pathlib import Path
from typing import Any

from model.checkpoint import read_info
from pipeline.errors import CheckpointError


def run_facts(run: Path) -> dict[str, Any]:
    """Progress, best validation, size and origin of a run.

    Raises:
        CheckpointError: run.json cannot be read.
    """
    try:
        about = json.loads((run / "run.json").read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run / 'run.json'}: cannot be read: {error}") from error
    checkpoints = sorted((run / "checkpoints").glob("*.safetensors"))
    last = run / "checkpoints" / "last.safetensors"
    info = read_info(last) if last.is_file() else None
    logged = _last_line(run / "metrics.jsonl")
    best = (info.best if info else None) or {}
    return {
        "kind": "run",
        "step": info.step if info else 0,
        "steps": about.get("config", {}).get("steps", info.config["steps"] if info else None),
        "loss": logged.get("loss"),
        "best_psnr": best.get("val_psnr"),
        "best_step": best.get("step"),
        "parameters": about.get("parameters"),
        "device": about.get("device"),
        "store": info.store["path"] if info else None,
        "checkpoints": [path.stem for path in checkpoints],
    }


def _last_line(path: Path) -> dict[str, Any]:
    """The last logged step that has a loss; nothing if there is none yet."""
    if not path.is_file():
        return {}
    for line in reversed(path.read_text(encoding="utf-8").splitlines()):
        values = json.loads(line)
        if isinstance(values, dict) and "loss" in values:
            return values
    return {}
