import math

import pytest

from cli.sparkline import ASCII, BLOCKS, levels_for, sparkline


def test_runs_from_the_lowest_to_the_highest() -> None:
    assert sparkline(range(8), 8) == BLOCKS
    assert sparkline([3, 1], 8, levels=ASCII) == "@_"


def test_more_values_than_room_are_averaged() -> None:
    assert sparkline([0, 0, 7, 7, 0, 14], 3) == "▁██"


@pytest.mark.parametrize(("values", "text"), [([], ""), ([2.0, 2.0], "▁▁"), ([math.nan], " ")])
def test_nothing_to_compare_is_low_or_blank(values: list[float], text: str) -> None:
    assert sparkline(values, 8) == text


def test_what_is_not_finite_is_a_gap() -> None:
    assert sparkline([1, math.inf, 2], 8) == "▁ █"


def test_a_terminal_without_unicode_gets_what_it_can_show() -> None:
    assert levels_for("UTF-8") == levels_for("utf8") == BLOCKS
    assert levels_for("ascii") == levels_for(None) == ASCII
    assert ASCII.isascii() and len(ASCII) == len(BLOCKS)
