import pytest

from pipeline.logs.rows import RowError, exact_ns, span_around


@pytest.mark.parametrize(
    ("text", "unit_ns", "ns", "places"),
    [
        ("0.5", 1, 0, 1),
        ("1.5", 1, 2, 1),
        ("0.0005", 1000, 0, 4),
        ("-2.25", 1000, -2250, 2),
        ("+7.", 10**9, 7 * 10**9, 0),
        ("123456789.123456789", 10**9, 123456789123456789, 9),
    ],
)
def test_decimals_are_exact_and_halves_go_to_even(text, unit_ns, ns, places):
    assert exact_ns(text, unit_ns, "start") == (ns, places)


@pytest.mark.parametrize("text", ["", "1e3", "1,5", "0x1", "inf", ".5", "1" * 19, "٣"])
def test_what_is_no_decimal_is_refused(text):
    with pytest.raises(RowError, match="start"):
        exact_ns(text, 1, "start")


def test_a_stamp_is_the_start_the_middle_or_the_stop_of_an_exposure():
    assert span_around("start", 100, 7) == (100, 107)
    assert span_around("middle", 100, 7) == (97, 104)
    assert span_around("stop", 100, 7) == (93, 100)
