"""What tells the network which instant of each exposure to restore."""

import pytest
import torch

from model.instants import INSTANT_CHANNELS, weights, with_instants


def test_bins_are_weighed_by_a_triangle_around_the_instant():
    # Middles at 0.0625, 0.1875, 0.3125, ...; the half width is 0.16, which bins of an eighth do not widen.
    near = [1 - abs(middle - 0.2) / 0.16 for middle in (0.0625, 0.1875, 0.3125)]
    wanted = torch.tensor([*near, 0, 0, 0, 0, 0]) / sum(near)
    torch.testing.assert_close(weights(torch.tensor(0.2), 8), wanted)
    assert weights(torch.tensor([[0.0, 0.3], [0.5, 1.0]]), 3).shape == (2, 2, 3)


@pytest.mark.parametrize("num_bins", [1, 2, 5, 16, 41])
def test_at_every_instant_there_is_a_mean_and_time_reversed_it_is_mirrored(num_bins):
    instants = torch.linspace(0, 1, 101, dtype=torch.float64)
    found = weights(instants, num_bins)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=-1), torch.ones_like(instants))
    torch.testing.assert_close(weights(1 - instants, num_bins), found.flip(-1))


def test_bins_stay_as_they_are_beside_their_mean_and_the_instant():
    voxels = torch.rand(2, 3, 4, 5, 6)
    instants = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.9, 1.0]])
    told = with_instants(voxels, instants)
    assert told.shape == (2, 3, 4 + INSTANT_CHANNELS, 5, 6)
    assert torch.equal(told[:, :, :4], voxels)
    for clip in range(2):
        for frame in range(3):
            around = sum(
                share * counts
                for share, counts in zip(weights(instants[clip, frame], 4), voxels[clip, frame], strict=True)
            )
            torch.testing.assert_close(told[clip, frame, 4], around)
            assert (told[clip, frame, 5] == 2 * instants[clip, frame] - 1).all()


@pytest.mark.parametrize("shape", [(2,), (2, 4), (1, 3), ()])
def test_refuses_instants_that_are_not_one_a_frame(shape):
    with pytest.raises(ValueError, match="one a frame"):
        with_instants(torch.rand(2, 3, 4, 5, 6), torch.rand(shape))
