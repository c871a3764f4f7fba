"""Named tensors from a file somebody else wrote, read without running anything in it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError

_WRAPPERS = ("params_ema", "params", "state_dict")
"""Entries under which published checkpoints keep their tensors, the best first."""


def read_weights(path: Path, fix: str = "") -> dict[str, Tensor]:
    """Read a `.safetensors` file, or any other as a torch file of plain tensors (`weights_only=True`).

    Raises:
        CheckpointError: not a file, unreadable, holding code or anything but tensors. `fix` is passed on.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", fix)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read as weights: {_first_line(error)}", fix) from error
    except (
        Exception
    ) as error:  # a hostile file can make the unpickler raise anything, pickle's own error first
        raise CheckpointError(f"{path}: refused: {_first_line(error)}", fix) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds other things than named tensors", fix)
    return dict(state)


def _read_torch(path: Path) -> object:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, Mapping):
        for name in _WRAPPERS:
            if isinstance(state.get(name), Mapping):
                return state[name]
    return state


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
