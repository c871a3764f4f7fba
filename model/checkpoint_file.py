"""The bytes of a checkpoint: one safetensors file, written whole or not at all, and signed with its own digest.

The header of the file holds one JSON text under `spk`: what the tensors belong to, and the SHA-256 of the whole file
with the 64 digits of that very sum written as zeros. Nothing in it is executed on reading.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.files import atomic_file

FORMAT = 1
SUFFIX = ".safetensors"
_UNSIGNED = b"sha256:" + b"0" * 64
_CHUNK = 1 << 22
_REQUIRED = ("format", "step", "config", "num_bins", "digest")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write one checkpoint, durably; `path` keeps its old content until the new one is on disk.

    Args:
        tensors: named tensors on any device.
        header: plain values; see `CheckpointInfo` for what is expected.

    Raises:
        OSError: the disk is full or fails.
        ValueError: the header holds something JSON cannot.
    """
    signed = dict(header) | {"format": FORMAT, "digest": _UNSIGNED.decode()}
    data = save(_apart(tensors), metadata={"spk": json.dumps(signed, allow_nan=False)})
    start = data.index(_UNSIGNED)
    digest = b"sha256:" + hashlib.sha256(data).hexdigest().encode()
    with atomic_file(path) as file:
        file.write(data[:start])
        file.write(digest)
        file.write(memoryview(data)[start + len(digest) :])


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, none sharing memory with another, which the format refuses."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        ours = tensor.detach().cpu().contiguous()
        start = ours.untyped_storage().data_ptr()
        apart[name] = ours.clone() if start in seen else ours
        seen.add(start)
    return apart


def load_tensors(path: Path, *prefixes: str) -> dict[str, Tensor]:
    """Read the tensors whose names start with one of `prefixes` (all without any), on the CPU.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not prefixes or name.startswith(prefixes)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def read_header(path: Path) -> dict[str, Any]:
    """The JSON of the header, and not yet a look at the rest of the file.

    Raises:
        CheckpointError: no such file, not a checkpoint of this program, damaged, or of another format.
    """
    fix = "check the path; spk inspect RUN lists the checkpoints of a run"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", fix)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("spk")
        header = json.loads(text) if text else None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}", fix) from error
    if not isinstance(header, dict) or any(key not in header for key in _REQUIRED):
        raise CheckpointError(f"{path}: not a checkpoint of this program (no spk header)", fix)
    if header["format"] != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {header['format']!r}; this version reads {FORMAT}")
    return header


def verify(path: Path, digest: Any) -> None:
    """Compare every byte of the file with the digest its header names.

    Raises:
        CheckpointError: they differ.
    """
    signature = str(digest).encode()
    actual = hashlib.sha256()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        file.seek(0)
        head = file.read(8 + length)
        actual.update(head.replace(signature, _UNSIGNED, 1))
        while chunk := file.read(_CHUNK):
            actual.update(chunk)
    if signature != b"sha256:" + actual.hexdigest().encode():
        raise CheckpointError(
            f"{path}: damaged: its bytes do not match their checksum", "use another checkpoint of the run"
        )
