"""Regular expressions of a manifest, for the numbers in names: tried only where no name can keep them busy for long.

Python's `re` goes back and forth: `(a+)+$` takes hours to find that forty letters and a dot do not fit. How often it
may try is bounded beforehand, from the pattern, for the longest name there can be.
"""

import re
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_NAME = 255
"""Characters of a name that a pattern is tried on: the longest a file can have."""
MAX_PATTERN = 200
MOST_TRIES = 1 << 26
"""Ways to divide a name among the parts of a pattern. Few are tried of most; all take about a second."""
_SINGLE = {ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN, ops.AT, ops.CATEGORY}
_BEGINNINGS = [(ops.AT, ops.AT_BEGINNING), (ops.AT, ops.AT_BEGINNING_STRING)]
_REPEATS = {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT}


def check_pattern(pattern: str, most_groups: int) -> None:
    """Refuse what cannot be used to find numbers in names.

    Raises:
        ValueError: not a regular expression, too long, without or with too many groups, or one that may take
            too long.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"pattern of {len(pattern)} characters, expected at most {MAX_PATTERN}")
    try:
        groups = re.compile(pattern).groups
        parsed = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if not 1 <= groups <= most_groups:
        raise ValueError(f"pattern {pattern!r} has {groups} groups, expected 1 to {most_groups}")
    starts = 1 if parsed[0] in _BEGINNINGS else MAX_NAME + 1
    if starts * _tries(parsed) > MOST_TRIES:
        raise ValueError(
            f"pattern {pattern!r} may take too long: it repeats too much; begin it with ^, repeat single characters"
            " only, and at most three of them"
        )


def search_name(pattern: str, name: str) -> re.Match[str] | None:
    """What a checked pattern finds in a name; nothing in one that is longer than a name can be."""
    return re.search(pattern, name) if len(name) <= MAX_NAME else None


def _tries(items: Any) -> int:
    """The ways in which parts of a pattern, one after the other, may fit some text; enough to see it is too many."""
    total = 1
    for op, value in items:
        total *= _tries_of(op, value)
        if total > MOST_TRIES:
            return MOST_TRIES + 1
    return total


def _tries_of(op: Any, value: Any) -> int:
    if op in _SINGLE:
        return 1
    if op in _REPEATS:
        least, most, body = value
        most = min(int(most), MAX_NAME)
        return (most - min(int(least), most) + 1) * _tries(body) ** min(
            most, 30
        )  # 2 ** 30 is too many already
    if op is ops.SUBPATTERN:
        return _tries(value[-1])
    if op is ops.BRANCH:
        return sum(_tries(branch) for branch in value[1])
    return MOST_TRIES + 1  # looking around, referring back, conditions: not for numbers in names
