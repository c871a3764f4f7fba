import math

import numpy as np
import pytest

from pipeline.stats import CountHistogram, Normalization, normalization_from, stats_attributes


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 700_000)).astype(np.uint8) // 3


def test_histogram_by_hand():
    histogram = CountHistogram.of(np.array([[0, 2], [2, 255]], np.uint8))
    assert histogram.bins[[0, 1, 2, 255]].tolist() == [1, 0, 2, 1]
    assert histogram.num_values == 4


def test_histogram_of_larger_counts_by_hand():
    histogram = CountHistogram.of(np.array([[0, 300], [2, 300]], np.uint16))
    assert histogram.bins.shape == (301,) and histogram.bins[[0, 2, 300]].tolist() == [1, 1, 2]
    both = histogram + CountHistogram.of(np.array([2, 255], np.uint8))
    assert both.bins.shape == (301,) and both.bins[[0, 2, 255, 300]].tolist() == [1, 2, 1, 2]
    assert both.mean_std("count")[0] == pytest.approx((300 + 2 + 300 + 2 + 255) / 6)


@pytest.mark.parametrize("most", [0, 1, 3, 4, 5, 8, 9, 21, 64, 65, 255])
def test_a_known_maximum_changes_nothing(most):
    counts = np.random.default_rng(most).integers(0, most + 1, (3, 40_001)).astype(np.uint8)
    expected = np.bincount(counts.ravel(), minlength=256)
    for view in (counts, counts[:, ::2], counts.T):
        view.flags.writeable = False
        np.testing.assert_array_equal(
            CountHistogram.of(view, most).bins, np.bincount(view.ravel(), minlength=256)
        )
    np.testing.assert_array_equal(CountHistogram.of(counts).bins, expected)


def test_mean_and_deviation_equal_those_of_all_values(counts):
    histogram = CountHistogram.of(counts)
    for transform, values in (("count", counts.astype(float)), ("log1p", np.log1p(counts.astype(float)))):
        mean, std = histogram.mean_std(transform)
        assert mean == pytest.approx(values.mean(), rel=1e-12)
        assert std == pytest.approx(values.std(), rel=1e-12)


def test_any_split_gives_the_very_same_numbers(counts):
    whole = CountHistogram.of(counts)
    for pieces in (2, 7, 100):
        parts = [CountHistogram.of(part) for part in np.array_split(counts.ravel(), pieces)]
        merged = sum(reversed(parts), start=CountHistogram.empty())
        assert merged.mean_std("log1p") == whole.mean_std("log1p")


def test_refuses_other_types_and_nothing():
    with pytest.raises(ValueError, match="uint8 or uint16, not int64"):
        CountHistogram.of(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="no counts"):
        CountHistogram.empty().mean_std("count")


def test_table_normalizes_every_count():
    table = Normalization(num_bins=8, transform="log1p", mean=0.5, std=2.0, num_values=9).table()
    assert table.shape == (65536,) and table.dtype == np.float32
    assert table[0] == np.float32(-0.25)
    assert table[7] == np.float32((math.log(8) - 0.5) / 2)


@pytest.mark.parametrize(
    "changes", [{"std": 0.0}, {"std": float("nan")}, {"mean": float("inf")}, {"transform": "x"}]
)
def test_refuses_what_cannot_normalize(changes):
    with pytest.raises(ValueError):
        Normalization(
            **({"num_bins": 8, "transform": "count", "mean": 0.0, "std": 1.0, "num_values": 1} | changes)
        )


def test_attributes_there_and_back(counts):
    histogram = CountHistogram.of(counts)
    attributes = stats_attributes(histogram, num_bins=5, split="train")
    assert attributes["histogram"] == histogram.bins.tolist()
    for transform in ("count", "log1p"):
        found = normalization_from(attributes, transform)
        assert (found.mean, found.std) == histogram.mean_std(transform)
        assert (found.num_bins, found.num_values, found.split) == (5, counts.size, "train")
    assert normalization_from(attributes).transform == "log1p"
