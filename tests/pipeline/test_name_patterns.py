"""Patterns are tried on names only where that ends soon, whatever the name."""

import time

import pytest

from pipeline.name_patterns import MAX_NAME, MAX_PATTERN, check_pattern, search_name


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        (r"^(\d+)(?:_(\d+))?$", "0007_002", ("0007", "002")),
        (r"^GOPR\d+_(\d+)_\d+$", "GOPR0372_07_00", ("07",)),
        (r"key_id(\d+)", "203_part1_key_id151", ("151",)),
        (r"(?:left|right)-(\d{1,6})\.?", "cam-left-12", ("12",)),
        (r"^(?:[a-z]+_)?(\d+)", "frame_9", ("9",)),
        (r"(\d+)(?:-\d){2,3}", "5-1-2", ("5",)),
    ],
)
def test_finds_what_names_hold(pattern, name, groups):
    check_pattern(pattern, most_groups=2)
    assert search_name(pattern, name).groups() == groups


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"^(\w+\s?)*$",
        r"^((a|a)*)b",
        r"(\d)" + "a?" * 30 + "a" * 30,
        r"^(\d)(?:a|ab)(?:b|ba){40}",
        r"(\d+)\d+\d+",
        r"^(\d+)\d+\d+\d+",
        r"(a{1,200}){1,200}",
        r"^(\d+)(?=.*x.*y)",
        r"^(\d+)\1+",
    ],
)
def test_refuses_what_may_take_long(pattern):
    with pytest.raises(ValueError, match="may take too long"):
        check_pattern(pattern, most_groups=2)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "not a regular"),
        ("a", "0 groups"),
        ("(.)(.)(.)", "3 groups"),
        ("(.)" + "a" * MAX_PATTERN, "characters"),
    ],
)
def test_refuses_what_is_no_pattern_for_numbers(pattern, problem):
    with pytest.raises(ValueError, match=problem):
        check_pattern(pattern, most_groups=2)


@pytest.mark.parametrize(
    "pattern", [r"^(\w+)\w+\w+[0-9]!", r"(\w*)\w*?[.!]x", r"^(\w{1,99})\w{1,99}\w{1,99}\w?[!.]"]
)
def test_the_worst_that_is_let_through_ends_soon(pattern):
    check_pattern(pattern, most_groups=2)
    started = time.process_time()
    assert search_name(pattern, "a" * MAX_NAME) is None
    assert time.process_time() - started < 3


def test_names_longer_than_names_can_be_fit_nothing():
    assert search_name(r"(\d+)", "1" * MAX_NAME) and search_name(r"(\d+)", "1" * (MAX_NAME + 1)) is None
