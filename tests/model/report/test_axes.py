"""Levels are few and round, and values lie where they belong between them."""

import pytest

from model.report.axes import columns, percent, round_levels, rows, written


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (21.3, 21.3, [21, 21.5]),
        (21.0, 21.0, [21, 21.5]),
        (20.0, 25.0, [20, 21, 22, 23, 24, 25]),
        (19.99, 48.2, [10, 20, 30, 40, 50]),
        (-3.0, 3.0, [-4, -2, 0, 2, 4]),
        (0.2, 110.0, [0, 50, 100, 150]),
    ],
)
def test_levels_are_few_and_round_and_enclose_the_values(low, high, wanted):
    assert round_levels(low, high) == wanted


def test_a_smaller_step_is_taken_where_it_is_allowed():
    assert round_levels(0.1, 0.3, 5, 0.05) == [0.1, 0.15, 0.2, 0.25, 0.3]


def test_values_lie_between_the_first_and_the_last_level():
    assert [percent(value, [30, 32, 40]) for value in (30, 35, 40)] == [0, 50, 100]


def test_lines_and_labels_are_at_the_same_height():
    lines, labels = rows([30, 40, 50])
    assert lines.count("<line") == 3 and 'y1="50.00"' in lines and 'style="top:50.00%">40<' in labels
    lines, labels = columns([-2, 0])
    assert 'x1="0.00"' in lines and 'style="left:0.00%">−2<' in labels


def test_levels_are_written_without_needless_digits():
    assert [written(level) for level in (20.0, 0.25, -1.5)] == ["20", "0.25", "−1.5"]
