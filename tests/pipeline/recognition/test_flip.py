import numpy as np
import pytest

from pipeline.dat import open_spikes
from pipeline.images import read_rgb
from pipeline.recognition.flip import FlipEvidence, flip_evidence
from pipeline.spike_format import SpikeFormat


def test_compares_the_grey_area_mean_with_the_counts():
    counts = np.array([[0, 2], [4, 9]])
    grey = counts.repeat(2, axis=0).repeat(2, axis=1) * 10 + 5
    image = np.stack([grey - 1, grey, grey + 1]).astype(np.uint8)
    evidence = flip_evidence(image, counts)
    assert evidence.as_read == pytest.approx(1, abs=1e-4)
    assert evidence.upside_down == pytest.approx(np.corrcoef([4, 9, 0, 2], [0, 2, 4, 9])[0, 1], abs=1e-3)
    assert evidence.verdict is True
    assert flip_evidence(image[:, ::-1], counts).verdict is False


@pytest.mark.parametrize(
    ("as_read", "upside_down", "verdict"),
    [(0.9, 0.1, True), (0.1, 0.9, False), (0.9, 0.8, None), (0.4, -0.4, None), (0.0, 0.0, None)],
)
def test_a_verdict_needs_likeness_and_a_margin(as_read, upside_down, verdict):
    assert FlipEvidence(as_read=as_read, upside_down=upside_down).verdict is verdict


def test_flat_pictures_tell_nothing():
    assert flip_evidence(np.full((3, 4, 4), 7, np.uint8), np.ones((4, 4), int)).verdict is None


@pytest.mark.parametrize(
    ("stream", "picture", "size", "at"),
    [
        ("gopro_spike_pair/000226.dat", "gopro_spike_pair/000226_sharp.png", (360, 640), 40),
        *(
            (
                f"sreds_t301_250x400/203_part{i}_key_id151.dat",
                f"sreds_t301_250x400/203_part{i}_key_id151.png",
                (250, 400),
                150,
            )
            for i in (1, 2, 3)
        ),
        *(
            (
                "sreds_t41_250x400/000_part1_key_id21.dat",
                f"sreds_t41_250x400/000_part1_key_id{key}.png",
                (250, 400),
                key - 1,
            )
            for key in (14, 21, 28)
        ),
    ],
)
def test_real_recordings_are_upright_only_one_way(shared_data, stream, picture, size, at):
    image = read_rgb(shared_data / picture)
    verdicts = {}
    for flip in ("vertical", "none"):
        fmt = SpikeFormat(height=size[0], width=size[1], rate_hz=1, flip=flip)
        spikes = open_spikes(shared_data / stream, fmt)
        verdicts[flip] = flip_evidence(
            image, spikes.count(max(at - 16, 0), min(at + 17, len(spikes)))
        ).verdict
    assert verdicts == {"vertical": True, "none": False}
