import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.histogram_kernel import AT_ONCE, BLOCK, count_values

SIZES = st.one_of(st.integers(0, 100), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 33, 3 * BLOCK]))


@settings(deadline=None, max_examples=200)
@given(SIZES, st.integers(0, 255), st.integers(0, 255), st.integers(0, 99))
def test_counts_what_bincount_counts(size, most, slack, seed):
    data = np.random.default_rng(seed).integers(0, most + 1, size).astype(np.uint8)
    counts = np.arange(256 + AT_ONCE)
    count_values(data, min(255, most + slack), counts)
    np.testing.assert_array_equal(counts[:256], np.arange(256) + np.bincount(data, minlength=256))


def test_equal_values_do_not_overflow():
    counts = np.zeros(256 + AT_ONCE, np.int64)
    count_values(np.full(5 * BLOCK, 2, np.uint8), 3, counts)
    assert counts[2] == counts.sum() == 5 * BLOCK
