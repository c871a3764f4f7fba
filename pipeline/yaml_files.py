"""YAML text to plain values and back, strictly: a repeated key, an alias or a huge file is an error, never a guess."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

MAX_YAML_BYTES = 1 << 20
"""A config or manifest larger than this is a mistake or an attack."""
MAX_DIGITS = 100


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping from `path`.

    Raises:
        ConfigError: no such file, too large, not YAML, repeated keys, aliases, or not a mapping.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file", "check the path, or list the presets with: ls configs")
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)  # a file of /proc has size 0, and may have no end
        if len(data) > MAX_YAML_BYTES:
            raise ConfigError(
                f"{path}: {max(len(data), path.stat().st_size)} bytes is too large for a YAML file of settings"
            )
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Read one YAML mapping from `text`; an empty text is an empty mapping.

    Args:
        source: where it is from, for errors.

    Raises:
        ConfigError: not YAML, repeated keys, aliases, or not a mapping.
    """
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{source}: expected a mapping of names to values, got {type(value).__name__}")
    return value


def dump_yaml(value: Any) -> str:
    """The YAML text of plain values, in their order; floats are written so that YAML reads them as floats."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes 1e-05 as 1.0e-05, which YAML 1.1 would read as text, and no aliases, which `read_yaml` refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    if value != value or value in (float("inf"), float("-inf")):
        return yaml.SafeDumper.represent_float(dumper, value)
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _represent_float)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys, aliases (the raw material of a YAML bomb) and endless numbers."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if (
            len(node.value) > MAX_DIGITS
        ):  # 1:1:1:1 and so on is a number to the base of 60, computed digit by digit
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters", node.start_mark
            )
        return int(super().construct_yaml_int(node))

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, f"alias *{event.anchor} is not allowed here", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
