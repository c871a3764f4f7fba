import numba
import numpy as np
import pytest

from pipeline.storage.lanes import LANES, SIDE, join_bits, load_byte, move, reverse, store_byte, transpose


@numba.njit
def run_bytes(values, out):
    for i in range(len(values)):
        store_byte(out.ctypes.data + i, load_byte(values.ctypes.data + i))


@numba.njit
def run_move(values, out, count):
    move(out.ctypes.data, values.ctypes.data, count)


@numba.njit
def run_reverse(values, out, first):
    reverse(out.ctypes.data + first, values.ctypes.data + first)


@numba.njit
def run_transpose(values, first, pitch, out, row, step):
    transpose(out.ctypes.data + row, step, values.ctypes.data + first, pitch)


@numba.njit
def run_join(planes, plane_bytes, out):
    join_bits(out.ctypes.data, planes.ctypes.data, plane_bytes)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 256, 1000, np.uint8)


def test_single_bytes_and_runs_of_them_are_copied(values):
    out = np.zeros_like(values)
    run_bytes(values, out)
    np.testing.assert_array_equal(out, values)
    for count in (0, 1, 63, 500):
        out[:] = 7
        run_move(values, out, count)
        np.testing.assert_array_equal(out[:count], values[:count])
        assert (out[count:] == 7).all()


def test_reverses_at_any_address(values):
    for first in range(20):
        out = np.zeros_like(values)
        run_reverse(values, out, first)
        part = slice(first, first + SIDE)
        np.testing.assert_array_equal(out[part], values[part][::-1])
        assert not out[: part.start].any() and not out[part.stop :].any()


def test_transposes_rows_at_any_distance_and_in_either_order(values):
    for first, pitch, row, step in ((0, SIDE, 0, SIDE), (3, 37, 1, 41), (5, 20, 2, 17)):
        rows = np.stack([values[first + r * pitch :][:SIDE] for r in range(SIDE)])
        for order in (1, -1):
            out = np.zeros(1000, np.uint8)
            start = first if order == 1 else first + (SIDE - 1) * pitch
            run_transpose(values, start, order * pitch, out, row, step)
            found = np.stack([out[row + r * step :][:SIDE] for r in range(SIDE)])
            np.testing.assert_array_equal(found, rows[::order].T)


@pytest.mark.parametrize("most", [1, 3, 4, 16, 255])
def test_joins_the_bits_of_planes(most):
    """Counts without and with higher bits go different ways."""
    expected = np.random.default_rng(most).integers(0, most + 1, LANES, np.uint8)
    bits = np.unpackbits(expected[:, None], axis=1, bitorder="little")
    planes = np.zeros((8, 9), np.uint8)
    planes[:, : LANES // 8] = np.packbits(bits.T, axis=1, bitorder="little")
    out = np.zeros(LANES, np.uint8)
    run_join(planes, 9, out)
    np.testing.assert_array_equal(out, expected)
