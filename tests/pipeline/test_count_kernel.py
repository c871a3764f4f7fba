import numpy as np
import pytest

from pipeline.count_kernel import LANE, UNROLLED, count_lanes, lane_table


def count(packed, edges, lanes, whole, width, out):
    """`count_lanes` of one array of packed frames."""
    frames = packed.ctypes.data + np.arange(len(packed)) * packed.strides[0]
    place, room = out.ctypes.data, np.empty(2 * LANE, np.uint8)
    return count_lanes(
        frames, np.array(edges), lanes, whole, width, place, out.strides[0], place + out.nbytes, room
    )


def test_lanes_by_hand():
    """Rows of 40 bytes; 300 pixels need three lanes, of which the last begins at 300 - 128 = 172."""
    lanes, whole = lane_table(2, 4, 0, 300, 40, 40, 300)
    assert not whole and len(lanes) == 6  # 172 is not a multiple of 8
    assert lanes[:, 6].tolist() == [0, 128, 172, 300, 428, 472]
    assert lanes[:, 0].tolist() == [80, 96, 101, 120, 136, 141]
    assert lanes[:, 5].tolist() == [0, 0, 4, 0, 0, 4]
    _, whole = lane_table(2, 4, 16, 16 + 256, 40, 40, 256)
    assert whole


def test_lanes_read_nothing_outside_the_row():
    for row_bytes in range(8, 40):
        for first in range(0, 8 * row_bytes, 3):
            for last in range(first + 1, 8 * row_bytes + 1, 5):
                lanes, whole = lane_table(0, 1, first, last, row_bytes, row_bytes, last - first)
                if whole:
                    assert (lanes[:, 0] >= 0).all() and (lanes[:, 0] + 16 <= row_bytes).all()
                words, byte = lanes[:, [0, 2]], lanes[:, 4]
                assert (words >= 0).all() and (words + 8 <= row_bytes).all()
                assert (byte >= 0).all() and (byte < row_bytes).all()
                assert (lanes[:, [1, 3, 5]] >= 0).all() and (lanes[:, [1, 3]] < 64).all()


@pytest.mark.parametrize("number", [*range(1, UNROLLED + 3), 15, 16, 17, 63, 64, 255])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_every_number_of_frames_is_added_up(number, share):
    rng = np.random.default_rng(number)
    spikes = (rng.random((number + 2, 3, 2 * LANE)) < share).astype(np.uint8)
    packed = np.packbits(spikes, axis=2, bitorder="little")
    lanes, whole = lane_table(0, 3, 0, 2 * LANE, 32, 32, 2 * LANE)
    out = np.empty((1, 3, 2 * LANE), np.uint8)
    for every_lane in (whole, False):
        out.fill(77)
        count(packed, [1, 1 + number], lanes, every_lane, 2 * LANE, out)
        np.testing.assert_array_equal(out[0], spikes[1 : 1 + number].sum(axis=0))


def test_an_empty_bin_is_left_as_it_is():
    lanes, whole = lane_table(0, 1, 0, LANE, 16, 16, LANE)
    out = np.full((3, 1, LANE), 77, np.uint8)
    count(np.full((2, 1, 16), 255, np.uint8), [0, 1, 1, 2], lanes, whole, LANE, out)
    assert [set(part.ravel().tolist()) for part in out] == [{1}, {77}, {1}]


@pytest.mark.parametrize(
    ("edges", "found"), [([0, 3], (-1, 3)), ([-1, 2], (-1, 3)), ([0, 2, 1], (-1, 2)), ([0, 0, 2], (0, 2))]
)
def test_bins_outside_the_frames_are_not_counted(edges, found):
    lanes, whole = lane_table(0, 1, 0, LANE, 16, 16, LANE)
    out = np.full((len(edges) - 1, 1, LANE), 77, np.uint8)
    assert count(np.full((2, 1, 16), 255, np.uint8), edges, lanes, whole, LANE, out) == found
    assert (out == 77).all() == (found[0] < 0)


def test_bins_of_more_frames_than_a_byte_counts_are_not_counted():
    lanes, whole = lane_table(0, 1, 0, LANE, 16, 16, LANE)
    out = np.full((1, 1, LANE), 77, np.uint8)
    assert count(np.full((256, 1, 16), 255, np.uint8), [0, 256], lanes, whole, LANE, out) == (256, 256)
    assert (out == 77).all()
