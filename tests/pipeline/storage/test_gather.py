import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage.gather import (
    LANES,
    SIDE,
    gather,
    gather_bits,
    join_bits,
    load_byte,
    move,
    reverse,
    room_bytes,
    store_byte,
    transpose,
)

GAP = 4
"""Bytes between chunks, as their checksums are."""


def shuffled(values: np.ndarray, block_bytes: int) -> np.ndarray:
    """The bytes of `values` with the bits of each block as eight planes, written plainly."""
    planes = []
    flat = values.reshape(-1)
    for start in range(0, flat.size, block_bytes):
        bits = np.unpackbits(flat[start : start + block_bytes, None], axis=1, bitorder="little")
        planes.append(np.packbits(bits.T, axis=1, bitorder="little").reshape(-1))
    return np.concatenate([*planes, np.full(LANES, 255, np.uint8)])


@st.composite
def windows(draw, most_chunks):
    """A chunk's shape, how many there are, what part of them is wanted, and how the memory for it is laid out."""
    chunk = tuple(draw(st.integers(1, n)) for n in (2, 2, 40, 40))
    grid = tuple(draw(st.integers(1, n)) for n in most_chunks)
    spans = []
    for side, count in zip(chunk, grid, strict=True):
        start = draw(st.integers(0, side - 1))  # in the first chunk
        stop = draw(st.integers(max(start, (count - 1) * side) + 1, count * side))  # in the last one
        spans.append((start, stop))
    steps = draw(st.tuples(*[st.sampled_from((1, -1))] * 4))
    return chunk, grid, spans, steps, draw(st.booleans()), draw(st.integers(1, 2)), draw(st.integers(0, 99))


def memory(spans, steps, exchanged, spread):
    """A (a, b, c, d) view of memory, and the memory: backwards on some axes, columns first, or with gaps."""
    shape = [b - a for a, b in spans]
    a, b, rows, columns = shape
    if exchanged:
        room = np.zeros((a, b, columns, rows * spread), np.uint8)
        view = room[..., ::spread].swapaxes(2, 3)
    else:
        room = np.zeros((a, b, rows, columns * spread), np.uint8)
        view = room[..., ::spread]
    return view[tuple(slice(None, None, step) for step in steps)], room


@settings(deadline=None, max_examples=200)
@given(window=windows((2, 2, 3, 3)))
def test_gathers_like_numpy_however_the_memory_is_laid_out(window):
    chunk, grid, spans, steps, exchanged, spread, seed = window
    values = np.random.default_rng(seed).integers(
        1, 256, [c * n for c, n in zip(chunk, grid, strict=True)], np.uint8
    )
    starts = np.empty(grid, np.int64)
    source: list[np.ndarray] = []
    for position in np.ndindex(*grid):
        starts[position] = sum(map(len, source))
        part = tuple(slice(p * c, (p + 1) * c) for p, c in zip(position, chunk, strict=True))
        source += [values[part].reshape(-1), np.zeros(GAP, np.uint8)]
    out, room = memory(spans, steps, exchanged, spread)
    flat = np.concatenate(source)
    flat.flags.writeable = False
    assert gather(flat, starts, chunk, tuple(-a for a, _ in spans), out)
    np.testing.assert_array_equal(out, values[tuple(slice(a, b) for a, b in spans)])
    assert np.count_nonzero(room) == out.size  # and nothing beside it was touched


@settings(deadline=None, max_examples=200)
@given(
    window=windows((1, 1, 1, 1)),
    blocks=st.integers(1, 4),
    most=st.sampled_from((1, 3, 255)),
    offset=st.integers(0, 3),
)
def test_joins_bits_like_numpy_however_the_memory_is_laid_out(window, blocks, most, offset):
    (a, b, c, d), _, spans, steps, exchanged, spread, seed = window
    chunk = (a, b, c, -(-d // 8) * 8) if offset == 0 else (a, b, -(-c // 8) * 8, d)
    values = np.random.default_rng(seed).integers(0, most + 1, chunk, np.uint8)
    block_bytes = max(8, values.size // blocks // 8 * 8)
    out, room = memory(spans, steps, exchanged, spread)
    room[...] = 77
    planes, to_join = shuffled(values, block_bytes), np.empty(room_bytes(chunk), np.uint8)
    gather_bits(planes, block_bytes, chunk, tuple(-a for a, _ in spans), out, to_join)
    np.testing.assert_array_equal(out, values[tuple(slice(a, b) for a, b in spans)])
    out[...] = 77
    assert (room == 77).all()


def test_a_chunk_of_which_only_the_end_is_wanted_starts_before_the_memory():
    values = np.arange(24, dtype=np.uint8).reshape(1, 1, 4, 6)
    out = np.zeros((1, 1, 5, 4), np.uint8)
    assert gather(values.reshape(-1), np.zeros((1, 1, 1, 1), np.int64), (1, 1, 4, 6), (0, 0, -3, -4), out)
    assert out[0, 0].tolist() == [[22, 23, 0, 0], *[[0] * 4] * 4]


def test_copies_nothing_when_a_chunk_may_not_be_read():
    out = np.zeros((1, 1, 1, 4), np.uint8)
    starts = np.array([0, -1]).reshape(1, 1, 1, 2)
    assert not gather(np.ones(8, np.uint8), starts, (1, 1, 1, 2), (0, 0, 0, 0), out)
    assert not out.any()


# Vectors of bytes


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
