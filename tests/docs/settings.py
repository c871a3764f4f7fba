"""Whether `key=value` is a setting that the program has, of whatever it configures."""

import dataclasses
import re
import types
import typing

from model.evaluation.config import EvaluateConfig
from model.training.config import TrainConfig
from pipeline.config import apply_overrides, build
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.simulation.camera import SpikeCamera
from pipeline.simulation.scenes import SceneConfig
from pipeline.simulation.video_takes import VideoConfig
from pipeline.spike_format import AutoFormat, SpikeFormat

SCHEMAS = (
    TrainConfig,
    EvaluateConfig,
    Manifest,
    SceneConfig,
    VideoConfig,
    SpikeFormat,
    AutoFormat,
    SpikeCamera,
)
_OPEN = re.compile(r"[A-Z][A-Z_]*(\.\w+)?|.*…|N")
"""A value that stands for one of the reader's."""


def is_setting(text: str) -> bool:
    """Does a command take it? The key must be known and the value of its kind, unless that is in capitals, or …"""
    key, _, value = text.partition("=")
    return any(
        _has(schema, key.split(".")) and (_OPEN.fullmatch(value) or _takes(schema, key, text))
        for schema in SCHEMAS
    )


def is_key(key: str) -> bool:
    """Is it, or the end of, the dotted path of a setting?"""
    return any(_has(schema, key.split(".")) for schema in SCHEMAS)


def _has(schema: type, path: list[str]) -> bool:
    hints = typing.get_type_hints(schema)
    if path[0] not in hints or not dataclasses.is_dataclass(schema):
        return False
    inner = [one for one in _options(hints[path[0]]) if dataclasses.is_dataclass(one)]
    return len(path) == 1 or any(_has(one, path[1:]) for one in inner)


def _options(hint: object) -> tuple[object, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _takes(schema: type, key: str, text: str) -> bool:
    """Is the value one that the setting may have, as far as that does not depend on others?"""
    try:
        build(schema, apply_overrides({}, [text]), "")
    except ConfigError as error:
        lines = [line.strip() for line in error.problem.splitlines()]
        return not any(line.startswith((f"{key}:", f"{key}[")) and "missing" not in line for line in lines)
    return True
