import numpy as np
import pytest

from pipeline.storage.selections import room_for, spans_of


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


def test_room_has_an_axis_for_each_that_goes_away():
    out = np.zeros((2, 3), np.uint8)
    room = room_for([(0, 2), (4, 5), (1, 4)], {1}, np.dtype(np.uint8), out)
    assert room.shape == (2, 1, 3) and np.shares_memory(room, out)
    for wrong in (out.T, out.astype(np.int8), np.broadcast_to(np.uint8(0), (2, 3))):
        with pytest.raises(ValueError, match="expected uint8"):
            room_for([(0, 2), (4, 5), (1, 4)], {1}, np.dtype(np.uint8), wrong)
