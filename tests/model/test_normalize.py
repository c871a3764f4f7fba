import numpy as np
import pytest
import torch

from model.normalize import VoxelNormalizer, to_unit
from pipeline.stats import Normalization


def normalization() -> Normalization:
    return Normalization(num_bins=4, transform="log1p", mean=0.5, std=2.0, num_values=100)


def test_looks_every_count_up_as_the_formula_says() -> None:
    counts = torch.arange(256, dtype=torch.uint8).reshape(2, 4, 32)
    found = VoxelNormalizer(normalization().table())(counts)
    wanted = (np.log1p(np.arange(256.0)) - 0.5) / 2.0
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.reshape(-1).numpy(), wanted, rtol=1e-6)


def test_counts_of_16_bits_are_looked_up_as_well() -> None:
    counts = torch.from_numpy(np.array([[0, 255], [256, 65535]], np.uint16))
    found = VoxelNormalizer(normalization().table())(counts)
    wanted = (np.log1p([[0.0, 255.0], [256.0, 65535.0]]) - 0.5) / 2.0
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_keeps_no_tensor_in_a_state_dict() -> None:
    assert not VoxelNormalizer(normalization().table()).state_dict()


def test_refuses_counts_of_another_type() -> None:
    with pytest.raises(ValueError, match="uint8"):
        VoxelNormalizer(normalization().table())(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("table", [np.zeros(256, np.float32), np.full(65536, np.nan, np.float32)])
def test_refuses_a_table_that_is_not_one_value_for_each_count(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="65536 finite"):
        VoxelNormalizer(table)


def test_maps_bytes_to_the_unit_interval_and_leaves_them_alone() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit(frames), torch.tensor([0.0, 0.2, 1.0]))
    assert frames.tolist() == [0, 51, 255]
