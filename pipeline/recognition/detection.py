"""The spike format of a recording that declares none: what its content shows, and what it cannot show, as declared."""

import logging
from dataclasses import replace
from pathlib import Path

from pipeline.recognition.array_axes import detect_axes
from pipeline.recognition.geometry import detect_geometry
from pipeline.spike_format import AutoFormat, SpikeFormat

log = logging.getLogger(__name__)


def detect_format(path: Path, auto: AutoFormat) -> SpikeFormat:
    """Find how a `.dat`, `.npy` or `.npz` is to be read.

    Its flip is the declared one; for "auto", the usual one: "vertical" in a `.dat`, "none" in arrays.

    Raises:
        FormatError: the content does not tell, or tells two ways nearly as well.
    """
    is_dat = path.suffix.lower() == ".dat"
    reading = detect_geometry(path).reading if is_dat else detect_axes(path)
    usual = "vertical" if is_dat else "none"
    found = replace(reading, rate_hz=auto.rate_hz, flip=usual if auto.flip == "auto" else auto.flip)
    log.info(
        "%s: found %dx%d, %s", path, found.height, found.width, found.bit_order if is_dat else found.axes
    )
    return found
