"""Other spikes for a recording: how they are asked for, and where they come from."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.ablations import Rate, Shift, Shuffle, Threshold, Zero, parse_ablation
from pipeline.errors import UsageError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.store import open_store
from pipeline.voxelize import voxelize
from pipeline.voxels import bin_spikes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("spikes=zero", [Zero()]),
        ("spikes=shuffle", [Shuffle()]),
        ("spikes=shift:+8", [Shift(8)]),
        ("spikes=shift:-3", [Shift(-3)]),
        ("spikes=shift:\N{MINUS SIGN}3", [Shift(-3)]),
        ("spikes=shift:±8", [Shift(8), Shift(-8)]),
        ("spikes=shift:+-8", [Shift(8), Shift(-8)]),
        ("spikes=rate:1/2", [Rate(Fraction(1, 2))]),
        ("spikes=rate:½", [Rate(Fraction(1, 2))]),
        ("spikes=rate:0.75", [Rate(Fraction(3, 4))]),
        ("spikes=rate:2/4", [Rate(Fraction(1, 2))]),
    ],
)
def test_reads_what_is_asked_for(text, wanted):
    found = list(parse_ablation(text))
    assert found == wanted
    assert [parse_ablation(one.name) for one in found] == [(one,) for one in wanted]


@pytest.mark.parametrize(
    "text",
    [
        "zero",
        "spikes",
        "spikes=",
        "blurry=zero",
        "spikes=noise",
        "spikes=zero:1",
        "spikes=shift:8",
        "spikes=shift:+0",
        "spikes=shift:+1.5",
        "spikes=rate:1",
        "spikes=rate:0/3",
        "spikes=rate:1/0",
        "spikes=rate:-1/2",
    ],
)
def test_refuses_what_means_nothing(text):
    with pytest.raises(ValueError, match=r"ablate .*expected one of spikes=zero|rate [01]: expected"):
        parse_ablation(text)


def recording(name, frames, side=8):
    rng = np.random.default_rng(len(name) + frames)
    grids = rng.integers(0, 9, (frames, 4, side, side), dtype=np.uint8)
    return SimpleNamespace(name=name, num_frames=frames, voxels=lambda name: grids)


def test_shuffled_spikes_are_those_of_the_next_sequence_of_the_same_size():
    split = [recording("a", 3), recording("wide", 2, side=16), recording("short", 2)]
    found = Shuffle().of(split[0], "k4", split)
    assert found.source == "those of short" and found.there.all()
    np.testing.assert_array_equal(found.grids[:], split[2].voxels("k4")[[0, 1, 0]])
    assert Shuffle().of(split[2], "k4", split).source == "those of a"


def test_a_sequence_alone_is_given_spikes_of_frames_half_of_it_away():
    alone = recording("alone", 5)
    found = Shuffle().of(alone, "k4", [alone])
    np.testing.assert_array_equal(found.grids[:], alone.voxels("k4")[[2, 3, 4, 0, 1]])
    with pytest.raises(UsageError, match="one has one frame"):
        Shuffle().of(recording("one", 1), "k4", [recording("one", 1)])


def test_a_rate_of_one_in_m_is_that_of_m_times_the_threshold_and_others_are_drawn():
    sequence = recording("a", 3)
    third, threshold = (
        change.of(sequence, "k4", []).grids[:] for change in (Rate(Fraction(1, 3)), Threshold(3))
    )
    np.testing.assert_array_equal(third, threshold)
    most = Rate(Fraction(2, 3)).of(sequence, "k4", []).grids[:]
    before = sequence.voxels("k4")
    assert (most <= before).all() and most.sum() == pytest.approx(2 / 3 * before.sum(), rel=0.1)


@pytest.fixture(scope="module")
def stored(moving_raw, tmp_path_factory):
    store = tmp_path_factory.mktemp("ablations") / "store"
    ingest(moving_raw, store, read_manifest("simulated"), workers=1)
    voxelize(store, num_bins=5, workers=1)
    return open_store(store).sequences("train")


def plain(sequence, by, frames):
    spikes = np.unpackbits(sequence.spikes[:], axis=2, bitorder="little")[:, :, : sequence.spike_shape[1]]
    bins = sequence.voxels(sequence.voxel_names[0]).shape[1]
    return np.stack([bin_spikes(spikes[a + by : b + by], bins) for a, b in sequence.exposure[frames]])


@pytest.mark.parametrize("by", [0, 1, 8, -8])
def test_a_shifted_window_is_counted_again_to_the_spike(stored, by):
    sequence = stored[0]
    found = Shift(by).of(sequence, sequence.voxel_names[0], stored)
    assert found.there.all() and found.grids.shape == sequence.voxels(sequence.voxel_names[0]).shape
    np.testing.assert_array_equal(found.grids[:], plain(sequence, by, slice(None)))
    if not by:
        np.testing.assert_array_equal(found.grids[:], sequence.voxels(sequence.voxel_names[0])[:])


def test_exposures_that_leave_the_recording_are_left_out_not_clipped(stored):
    sequence = stored[0]
    inside = len(sequence.spikes) - int(sequence.exposure[-1, 1])
    found = Shift(inside + 1).of(sequence, sequence.voxel_names[0], stored)
    assert found.there.tolist() == [True] * (sequence.num_frames - 1) + [False]
    np.testing.assert_array_equal(found.grids[:-1], plain(sequence, inside + 1, slice(-1)))
    with pytest.raises(IndexError):
        found.grids[:]
    with pytest.raises(UsageError, match="out of its"):
        Shift(len(sequence.spikes)).of(sequence, sequence.voxel_names[0], stored)
