"""The command that repeats an evaluation."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def repeat_command(
    checkpoint: str,
    store: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    compare: Mapping[str, str],
) -> str:
    """The `spk evaluate` command line with everything that is not a default, for a POSIX shell.

    Args:
        settings, defaults: plain values of an `EvaluateConfig`, nested as it is.
        compare: more checkpoints, by name.
    """
    words = ["spk", "evaluate", checkpoint, store]
    for name, value in _changed(settings, defaults):
        if name == "split":
            words += ["--split", str(value)]
        elif name == "protocols":
            words += [word for protocol in value for word in ("--protocol", protocol)]
        else:
            words.append(f"{name}={_text(value)}")
    words += [word for name, path in compare.items() for word in ("--compare", f"{name}={path}")]
    return shlex.join(words)


def _changed(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from _changed(value, default, f"{within}{name}.")
        elif value != default:
            yield f"{within}{name}", value


def _text(value: Any) -> str:
    """As YAML on one line, which JSON is."""
    return value if isinstance(value, str) else json.dumps(value)
