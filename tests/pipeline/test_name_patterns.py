import time

import pytest

from pipeline.name_patterns import MAX_NAME, MAX_PATTERN, check_pattern, search_name


@pytest.mark.parametrize(
    "pattern",
    [r"^(\d+)(?:_(\d+))?$", r"^GOPR\d+_(\d+)_\d+$", r"^(\d+)$", r"frame_(\d+)", r"^[a-z]+_(\d+)\.x?$"],
)
def test_patterns_that_find_numbers_are_allowed_and_quick_on_any_name(pattern):
    check_pattern(pattern, 2)
    started = time.perf_counter()
    for name in ("1" * MAX_NAME, "a" * (MAX_NAME - 1) + "!", "GOPR" + "1" * 250, "1_" * 127):
        search_name(pattern, name)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "pattern", [r"^((a+)+)$", r"(\d+)*x", r"^(.*.*.*.*.*)$", r"^(a|aa)+$", r"(a?){30}a{30}"]
)
def test_patterns_that_may_try_for_hours_are_refused(pattern):
    with pytest.raises(ValueError, match="may take too long"):
        check_pattern(pattern, 3)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(\d+", "is not a regular expression"),
        (r"\d+", "has 0 groups"),
        (r"(\d)(\d)(\d)", "has 3 groups"),
        ("(" + "a" * MAX_PATTERN + ")", "expected at most 200"),
        (r"^(\d+)(?=x)$", "may take too long"),
    ],
)
def test_what_is_no_pattern_for_numbers_is_refused(pattern, words):
    with pytest.raises(ValueError, match=words):
        check_pattern(pattern, 2)


def test_a_name_longer_than_a_file_s_fits_nothing():
    assert search_name(r"^(\d+)$", "7")[1] == "7"
    assert search_name(r"^(\d+)$", "7" * (MAX_NAME + 1)) is None
