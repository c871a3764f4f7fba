"""Files that are called `.dat` and are something else: told by how they begin, and refused by name."""

import re
from pathlib import Path

from pipeline.errors import FormatError

_EVENTS = re.compile(rb"(%|#!AER-DAT)[\x20-\x7e\t]{3,200}\r?\n")
_SENSORS = {b"%": "Prophesee", b"#!AER-DAT": "DVS or DAVIS (AEDAT)"}
_OTHERS = {
    b"\x93NUMPY": "a NumPy array: name it .npy",
    b"PK\x03\x04": "a zip archive: name it .npz if NumPy wrote it, else unpack it",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: save its spikes with numpy.save as (T, H, W)",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\x1f\x8b\x08": "a gzip archive: unpack it",
}
"""Signatures so long, or so full of ones, that no spike camera begins a recording with them."""


def refuse_other_files(path: Path) -> None:
    """Refuse a file whose first bytes are the signature of another sensor or of a common file format.

    Raises:
        FormatError: naming what it is.
    """
    with path.open("rb") as file:
        head = file.read(256)
    if found := _EVENTS.match(head):
        line = found.group().decode("ascii").strip()
        raise FormatError(
            f"{path}: begins with {line!r}: events of a {_SENSORS[found[1]]} event camera, not the 1-bit frames of a"
            " spike camera"
        )
    for signature, name in _OTHERS.items():
        if head.startswith(signature):
            what, _, fix = name.partition(": ")
            raise FormatError(f"{path}: is {what}, not the 1-bit frames of a spike camera", fix)
