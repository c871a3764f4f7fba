"""The command that repeats an evaluation says what was changed, and can be read back."""

import shlex

from model.evaluation.command import repeat_command
from model.evaluation.config import EvaluateConfig
from pipeline.config import from_overrides, to_plain


def command(config: EvaluateConfig, compare: dict[str, str] | None = None) -> list[str]:
    plain = to_plain(config), to_plain(EvaluateConfig())
    return shlex.split(repeat_command("runs/my run", "a.zarr", *plain, compare or {}))


def test_defaults_are_left_out():
    assert command(EvaluateConfig()) == ["spk", "evaluate", "runs/my run", "a.zarr"]


def test_changes_are_told_as_options_and_overrides_that_read_back():
    changes = ["split=val", "tile=null", "pictures=3", "parallel.precision=bf16", "parallel.device=cpu"]
    config = from_overrides(EvaluateConfig, changes)
    words = command(config, {"rgb_only": "runs/b"})
    assert words[4:6] == ["--split", "val"] and words[-2:] == ["--compare", "rgb_only=runs/b"]
    settings = words[6:-2]
    assert set(settings) == set(changes[1:])
    assert from_overrides(EvaluateConfig, ["split=val", *settings]) == config


def test_protocols_are_told_one_by_one():
    plain = to_plain(EvaluateConfig())
    words = repeat_command("r", "s", plain | {"protocols": ["a", "b"]}, plain, {}).split()
    assert words[4:] == ["--protocol", "a", "--protocol", "b"]
