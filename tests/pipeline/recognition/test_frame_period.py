import numpy as np
import pytest

from pipeline.recognition.frame_period import (
    find_period,
    part_of,
    possible_periods,
    refractory_dip,
    search_periods,
)


def stream(
    frames: int, pixels: int, rate: float, order: str = "little", refractory: bool = True
) -> np.ndarray:
    """Bytes of a recording in which every pixel fires in `rate` of its frames, in even steps or at random."""
    rng = np.random.default_rng(0)
    if refractory:
        charge = rate * np.arange(frames + 1)[:, None] + rng.uniform(0, 1, pixels)
        bits = np.diff(np.floor(charge), axis=0).astype(np.uint8)
    else:
        bits = (rng.random((frames, pixels)) < rate).astype(np.uint8)
    return np.packbits(bits.ravel(), bitorder=order)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.49])
def test_no_pixel_fires_twice_running(rate):
    data = stream(200, 4096, rate)
    assert refractory_dip(data, 4096) > 0.8
    for other in (4088, 4096 // 2, 4000, 1000, 6144):
        assert refractory_dip(data, other) < 0.25


def test_what_fires_at_random_has_no_period():
    data = stream(64, 4096, 0.3, refractory=False)
    assert refractory_dip(data, 4096) < 0.1
    assert find_period(data, possible_periods(len(data))) is None


def test_too_few_spikes_tell_nothing():
    assert refractory_dip(stream(20, 4096, 0.01), 4096) is None
    assert refractory_dip(np.zeros(4096, np.uint8), 4096) is None
    assert refractory_dip(stream(2, 4096, 0.3), 8192) is None


@pytest.mark.parametrize("pixels", [4096, 3600, 2304])
def test_the_smallest_period_counts_though_its_multiples_dip_as_well(pixels):
    data = stream(120, pixels, 0.05)
    assert refractory_dip(data, 2 * pixels) > 0.8
    assert find_period(data, possible_periods(len(data))) == pixels
    assert find_period(data, [2 * pixels, 3 * pixels]) == 2 * pixels


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_period_of_no_whole_bytes_is_found_in_both_bit_orders(order):
    data = stream(81, 2501, 0.2, order)
    assert refractory_dip(data, 2501) > 0.8
    assert find_period(data, [2500, 2501, 2502, 5002]) == 2501


def test_possible_periods_are_whole_bytes_that_divide_the_file():
    assert possible_periods(2_534_400) == sorted(
        8 * d for d in range(256, 2_534_400 // 4 + 1) if 2_534_400 % d == 0
    )
    assert possible_periods(1009) == []
    assert all(8 * 25_000_000 % period == 0 for period in possible_periods(25_000_000))


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_period_that_nobody_names_is_searched_for(order):
    data = stream(83, 2501, 0.2, order)
    found = search_periods(data, len(data))
    assert 2501 in found and find_period(data, found) == 2501
    noise = stream(83, 2501, 0.2, refractory=False)
    assert find_period(noise, search_periods(noise, len(noise))) is None


def test_several_frames_together_are_taken_apart():
    data = stream(240, 2503, 0.05)
    assert refractory_dip(data, 4 * 2503) > 0.3
    assert part_of(data, 4 * 2503) == 2503
    assert part_of(data, 2503) == 2503
