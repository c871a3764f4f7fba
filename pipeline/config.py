"""Plain values to frozen dataclasses, strictly: every problem is listed, with its dotted path.

The dataclass *is* the schema: YAML keys are field names, annotations are checked, defaults are the documented
values, also where a group is given in part only. An unknown key, a missing value, `1e-4` read by YAML as text: each
is an error, never a guess.
"""

import copy
import dataclasses
import difflib
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from pipeline.errors import ConfigError, SpkError
from pipeline.files import can_be_path
from pipeline.storage.places import shown
from pipeline.yaml_files import parse_yaml, read_yaml

T = TypeVar("T")

MAX_EXTENDS_DEPTH = 8
MAX_LISTED = 50
"""Problems in one message; the rest are counted."""
MAX_SHOWN = 200
"""Characters of a value, or of a name, in a message."""
_INT64 = 1 << 63
_FRACTION = re.compile(r"[+-]?[0-9]{1,18}(/[1-9][0-9]{0,17}|\.[0-9]{1,18})?(e[+-]?[0-9]{1,2})?")
"""Bounded, because an exponent of millions is as many digits of exact number."""


def load_config(
    cls: type[T], path: Path, overrides: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
) -> T:
    """Read `path` as a `cls`, following `extends:` and applying `dotted.key=value` overrides last.

    Args:
        cls: a frozen dataclass.
        path: a YAML file; its `extends: other.yaml` names another one, relative to it, that it changes.
        overrides: `optim.lr=1.0e-4`; the value is read as YAML and checked like the file's own.
        defaults: plain values that the file need not give.

    Raises:
        ConfigError: with every problem found, each with its dotted path.
    """
    values = apply_overrides(_merge(dict(defaults or {}), _read_extended(path, depth=0)), overrides)
    source = f"{path}" + (f" with {' '.join(overrides)}" if overrides else "")
    return build(cls, values, source)


def from_overrides(cls: type[T], overrides: Sequence[str]) -> T:
    """The defaults of `cls`, changed by `dotted.key=value` overrides.

    Raises:
        ConfigError: with every problem found.
    """
    return build(cls, apply_overrides({}, overrides), " ".join(overrides) or "defaults")


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain values with `dotted.key=value` overrides applied; the value is read as YAML.

    Raises:
        ConfigError: an override is none.
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        _apply_override(changed, override)
    return changed


def build(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """Make a `cls` from plain values, or raise one `ConfigError` listing everything wrong with them."""
    problems: list[str] = []
    result = _dataclass_of(cls, values, "", problems)
    if problems:
        lines = [f"{source}:", *(f"  {problem}" for problem in problems[:MAX_LISTED])]
        more = [f"  and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        raise ConfigError("\n".join(lines + more))
    return typing.cast(T, result)


def to_plain(value: Any) -> Any:
    """Turn a config into mappings, lists and scalars that YAML and JSON can hold; `build` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, Fraction):
        return str(value)
    return value


def _read_extended(path: Path, depth: int) -> dict[str, Any]:
    values = read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: expected a file name, got {parent!r}")
    if depth >= MAX_EXTENDS_DEPTH:
        raise ConfigError(f"{path}: extends: more than {MAX_EXTENDS_DEPTH} files deep, or in a circle")
    return _merge(_read_extended(path.parent / parent, depth + 1), values)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected dotted.key=value, for example optim.lr=1.0e-4")
    parsed = parse_yaml(f"value: {text}", f"override {override!r}")
    if set(parsed) != {"value"}:
        raise ConfigError(f"override {override!r}: expected one value")
    value = parsed["value"]
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {parent} is a value, not a group of settings")
        values = child
    values[last] = value


def _dataclass_of(cls: type, values: Any, path: str, problems: list[str], default: Any = None) -> Any:
    """A `cls` of `values`; what they lack comes from `default`, one of its kind, or else from the defaults of `cls`."""
    if not isinstance(values, Mapping):
        problems.append(f"{path or 'file'}: expected a group of settings, got {_shown(values)}")
        return None
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    before = len(problems)
    for key in values:
        if key not in names:
            problems.append(f"{_join(path, key)}: unknown key{_known(key, names, len(problems))}")
    arguments = {}
    for field in (field for field in dataclasses.fields(cls) if field.init):
        where, hint = _join(path, field.name), hints[field.name]
        usual = getattr(default, field.name) if type(default) is cls else _default_of(field)
        if field.name in values and dataclasses.is_dataclass(hint):
            arguments[field.name] = _dataclass_of(hint, values[field.name], where, problems, usual)
        elif field.name in values:
            arguments[field.name] = _value_of(hint, values[field.name], where, problems)
        elif usual is not dataclasses.MISSING:
            arguments[field.name] = usual
        else:
            problems.append(f"{where}: missing")
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except (ValueError, SpkError) as error:  # what a __post_init__ says
        problems.append(f"{path}: {error}" if path else str(error))
    return None


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """Its default value, or `dataclasses.MISSING`."""
    made = field.default_factory
    return made() if made is not dataclasses.MISSING else field.default


def _value_of(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _union_of(arguments, value, path, problems)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        return _mismatch(" or ".join(repr(argument) for argument in arguments), value, path, problems)
    if origin is tuple:
        return _tuple_of(arguments, value, path, problems)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            return _mismatch("a mapping", value, path, problems)
        return _mapping_of(arguments[1], value, path, problems)
    if dataclasses.is_dataclass(hint):
        return _dataclass_of(hint, value, path, problems)
    return _scalar_of(hint, value, path, problems)


def _union_of(options: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    if value is None and type(None) in options:
        return None
    attempts: list[list[str]] = []
    for option in options:
        if option is type(None):
            continue
        attempt: list[str] = []
        result = _value_of(option, value, path, attempt)
        if not attempt:
            return result
        attempts.append(attempt)
    nested = [attempt for attempt in attempts if not attempt[0].startswith(f"{path}: expected ")]
    if nested:
        problems.extend(min(nested, key=len))  # of the option that was most likely meant
        return None
    expected = [attempt[0].removeprefix(f"{path}: expected ").rpartition(", got ")[0] for attempt in attempts]
    return _mismatch(" or ".join(expected), value, path, problems)


def _tuple_of(arguments: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        return _mismatch("a list", value, path, problems)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        return _mismatch(f"{len(arguments)} values", value, path, problems)
    pairs = zip(arguments, value, strict=True)
    return tuple(_value_of(hint, item, f"{path}[{i}]", problems) for i, (hint, item) in enumerate(pairs))


def _mapping_of(hint: Any, values: Mapping[Any, Any], path: str, problems: list[str]) -> dict[str, Any]:
    if odd := [key for key in values if not isinstance(key, str)]:
        problems.append(f"{path}: name {_shown(odd[0])} is not text: put it in quotes")
        return {}
    return {key: _value_of(hint, value, _join(path, key), problems) for key, value in values.items()}


def _scalar_of(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if (hint is bool and isinstance(value, bool)) or (hint is str and isinstance(value, str)):
        return value
    if hint is int and isinstance(value, int) and is_number and -_INT64 <= value < _INT64:
        return value
    if hint is float and is_number and abs(value) <= sys.float_info.max:  # neither .nan nor .inf
        return float(value)
    if hint is Path and isinstance(value, str | Path) and can_be_path(str(value)):
        return Path(value)
    is_fraction = isinstance(value, str) or (is_number and abs(value) < _INT64)
    if hint is Fraction and is_fraction and _FRACTION.fullmatch(str(value)):
        return Fraction(str(value))
    if hint is Any:
        return value
    note = ""
    if hint in (int, float) and isinstance(value, str) and _is_number_text(value):
        note = f" (YAML reads {value} as text: {_how_to_write(value)})"
    return _mismatch(getattr(hint, "__name__", str(hint)) + note, value, path, problems)


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _how_to_write(text: str) -> str:
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return "without quotes"
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"write {mantissa}e{sign}{exponent}"


def _mismatch(expected: str, value: Any, path: str, problems: list[str]) -> None:
    problems.append(f"{path}: expected {expected}, got {_shown(value)}")


def _known(key: Any, names: Sequence[str], problems_before: int) -> str:
    if problems_before >= MAX_LISTED:
        return ""
    close = difflib.get_close_matches(key[:MAX_SHOWN] if isinstance(key, str) else "", names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(names)})"


def _shown(value: Any) -> str:
    """A value as Python writes it, as far as there is room for it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more than 4300 digits; lists in lists in lists
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _join(path: str, key: Any) -> str:
    name = key[:MAX_SHOWN] if isinstance(key, str) else _shown(key)
    return f"{path}.{name}" if path else name
