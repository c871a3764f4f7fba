import numpy as np
import pytest

from pipeline.storage.selections import Selectable, spans_of


def test_spans_of_every_axis_and_the_axes_that_go_away():
    assert spans_of((1, slice(2, 9), slice(-2, None)), (4, 5, 6)) == ([(1, 2), (2, 5), (4, 6)], {0})
    assert spans_of(np.int64(-1), (4, 5)) == ([(3, 4), (0, 5)], {0})
    assert spans_of(slice(3, 1), (4,)) == ([(3, 3)], set())
    assert spans_of((), (4, 5)) == ([(0, 4), (0, 5)], set())


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (4, "4 on axis 0 of size 4"),
        ((0, -6), "-6 on axis 1 of size 5"),
        ((0, 0, 0), "3 indices for an array of 2 axes"),
        (slice(None, None, 2), "step 2 on axis 0"),
        (True, "index True"),
        (np.bool_(False), "index False"),
        (1.5, "index 1.5"),
        ([0], "expected a whole number or a slice"),
        (..., "Ellipsis"),
        (None, "None"),
    ],
)
def test_refuses_what_is_no_span(selection, words):
    with pytest.raises(IndexError, match=words):
        spans_of(selection, (4, 5))


class Table(Selectable):
    """Ten times the row and the column, filled in as it is asked for."""

    shape, dtype = (3, 5), np.dtype(np.uint8)

    def _fill(self, spans, out):
        rows, columns = (np.arange(*span) for span in spans)
        out[...] = 10 * rows[:, None] + columns


def test_values_are_selected_like_those_of_an_array():
    table, plain = Table(), 10 * np.arange(3)[:, None] + np.arange(5)
    for selection in (1, (slice(None), 2), (slice(1, 3), slice(0, 0)), (-1, slice(2, 4)), (2, -5)):
        np.testing.assert_array_equal(table[selection], plain[selection])
        out = np.full(plain[selection].shape, 9, np.uint8)
        table.read_into(selection, out)
        np.testing.assert_array_equal(out, plain[selection])
    assert len(table) == 3


def test_room_that_does_not_fit_is_refused():
    for wrong in (np.zeros((3, 2), np.uint8), np.zeros(2, np.int8), np.broadcast_to(np.uint8(0), 2)):
        with pytest.raises(ValueError, match=r"expected uint8 \(2,\)"):
            Table().read_into((1, slice(0, 2)), wrong)
