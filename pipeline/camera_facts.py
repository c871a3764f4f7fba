"""What is known of the camera that made a spike stream: a YAML file beside it, kept in the store with the stream.

`spk simulate` writes `camera.yaml`. For a real camera anything may stand in it; two facts are read, at the top or in
a group `camera`: `threshold`, the light of one spike in units of white for one frame, and `reset`, subtract or zero.
"""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.inputs import require_file
from pipeline.yaml_files import read_yaml

CAMERA_FILE = "camera.yaml"
MAX_CAMERA_BYTES = 1 << 14
"""It becomes an attribute of the store; a larger file is a mistake or an attack."""
RESETS = ("subtract", "zero")


def read_camera(path: Path) -> dict[str, Any]:
    """Read the facts about a camera, as plain values that JSON can hold.

    Raises:
        FormatError: no ordinary file, too large, values that JSON does not know, no such threshold or reset.
        ConfigError: not YAML, or not a mapping.
    """
    if (size := require_file(path, "camera")) > MAX_CAMERA_BYTES:
        raise FormatError(
            f"{path}: {size} bytes is more than the {MAX_CAMERA_BYTES} of a file about a camera"
        )
    facts = read_yaml(path)
    try:
        plain = json.loads(json.dumps(facts, allow_nan=False))
        threshold_of(plain)
        reset_of(plain)
    except (TypeError, ValueError, RecursionError) as error:
        fix = "write numbers and texts: threshold: 2.0, reset: subtract"
        raise FormatError(f"{path}: {' '.join(str(error).split())}", fix) from error
    return plain


def threshold_of(facts: Mapping[str, Any]) -> float | None:
    """The light of one spike, or None where the facts do not say.

    Raises:
        ValueError: it is no number above 0.
    """
    value = _sensor(facts).get("threshold")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
        raise ValueError(f"threshold {value!r}: expected a number above 0")
    return float(value)


def reset_of(facts: Mapping[str, Any]) -> str | None:
    """How the pixel starts again after a spike, or None where the facts do not say.

    Raises:
        ValueError: it is neither subtract nor zero.
    """
    value = _sensor(facts).get("reset")
    if value is not None and value not in RESETS:
        raise ValueError(f"reset {value!r}: expected {' or '.join(RESETS)}")
    return value


def _sensor(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    group = facts.get("camera", facts)
    return group if isinstance(group, Mapping) else {}
