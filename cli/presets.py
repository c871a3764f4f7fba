"""Configs by name: `tiny` is the `tiny.yaml` that comes with the program."""

import difflib
from pathlib import Path

from pipeline.errors import UsageError

SHIPPED = Path(__file__).resolve().parents[1] / "configs"


def preset_names() -> list[str]:
    """The shipped presets."""
    return list(_presets())


def config_path(name: Path) -> Path:
    """The file that is meant: the one of this name, or else the shipped preset.

    Args:
        name: a path, or the bare name of a preset.

    Raises:
        UsageError: there is neither; says which preset may be meant.
    """
    if name.is_file():
        return name
    presets = _presets()
    if str(name) in presets:
        return presets[str(name)]
    close = difflib.get_close_matches(name.stem, presets, n=1)
    known = ", ".join(presets) or "none"
    if name.is_dir():
        problem = f"{name}: a directory, expected a config file"
    elif name.name == str(name) and not name.suffix:
        problem = f"config {str(name)!r} is neither a file nor one of {known}"
    else:
        problem = f"{name}: no such file"
    hint = f"did you mean {close[0]}?" if close else f"give the path of a .yaml file, or one of {known}"
    raise UsageError(problem, hint)


def _presets() -> dict[str, Path]:
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
