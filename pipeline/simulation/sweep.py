"""One setting of the spike camera at several values: the same scenes, motions and noise, filmed once with each.

A sensor draws as many random numbers whatever its settings are, in the same order, so that data sets of one seed
differ in nothing but what the setting does. Only a noise that is switched off entirely is not drawn.
"""

import dataclasses
import difflib
import re

from pipeline.errors import ConfigError
from pipeline.simulation.camera import SpikeCamera

PREFIX = "rig.camera."
EXAMPLE = "threshold=1,2,4"
_VALUE = re.compile(r"[A-Za-z0-9.+-]+")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SweepPoint:
    """One of the data sets of a sweep.

    Attributes:
        folder: its name below the folder of the sweep, `threshold_2`.
        override: of the simulation's config, `rig.camera.threshold=2`.
    """

    folder: str
    override: str


def sweep_points(text: str) -> list[SweepPoint]:
    """The data sets that `KEY=VALUE,VALUE,...` asks for; the key is a field of the spike camera.

    Raises:
        ConfigError: not of that form, a key the camera does not have, or a value given twice.
    """
    key, equals, listed = text.removeprefix(PREFIX).partition("=")
    values = listed.split(",")
    known = [field.name for field in dataclasses.fields(SpikeCamera) if not field.name.startswith("maps")]
    if not equals or not all(_VALUE.fullmatch(value) for value in values):
        raise ConfigError(f"--sweep {text!r}: expected a setting of the spike camera and values, {EXAMPLE}")
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"--sweep {text!r}: the spike camera has no {key}", hint)
    if len(set(values)) < len(values):
        raise ConfigError(f"--sweep {text!r}: a value is given twice")
    return [SweepPoint(folder=f"{key}_{value}", override=f"{PREFIX}{key}={value}") for value in values]
