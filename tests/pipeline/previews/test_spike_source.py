"""Opening spikes to look at, from a store or from a file that says nothing."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.dat import unpack_rows, write_dat
from pipeline.errors import ConfigError, FormatError, UsageError
from pipeline.ingest import ingest
from pipeline.previews.spike_source import open_file, open_sequence
from pipeline.spike_format import SpikeFormat

SPIKES = np.random.default_rng(0).integers(0, 2, (20, 6, 16), np.uint8)


@pytest.fixture
def dat(tmp_path: Path) -> Path:
    write_dat(tmp_path / "a.dat", SPIKES, SpikeFormat(height=6, width=16, rate_hz=Fraction(1)))
    return tmp_path / "a.dat"


def test_a_sequence_of_a_store_is_what_was_recorded(raw, tmp_path: Path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    for key, name in ((None, "train/a"), ("test/c", "test/c")):
        source = open_sequence(tmp_path / "store", key)
        spikes = raw.spikes(name)
        assert source.shape == spikes.shape and source.rate_hz == 1000 and source.camera == {}
        assert np.array_equal(unpack_rows(source.packed(3, 9), spikes.shape[2]), spikes[3:9])
        assert source.exposures is not None and source.exposures.tolist() == [
            list(s) for s in raw.spans[name]
        ]
    for key in ("train/x", "train", "x/a"):
        with pytest.raises(UsageError, match="no sequence"):
            open_sequence(tmp_path / "store", key)


def test_a_file_is_read_as_told(dat: Path):
    source = open_file(dat, ["height=6", "width=16"])
    assert source.shape == SPIKES.shape and source.rate_hz is None and source.exposures is None
    assert np.array_equal(unpack_rows(source.packed(0, 20), 16), SPIKES)
    assert open_file(dat, ["height=6", "width=16", "rate_hz=1920"]).rate_hz == 1920
    upside_down = open_file(dat, ["height=6", "width=16", "flip=none"])
    assert np.array_equal(unpack_rows(upside_down.packed(0, 1), 16)[0], SPIKES[0, ::-1])


def test_a_format_file_says_how(dat: Path):
    (dat.parent / "format.yaml").write_text("height: 6\nwidth: 16\nrate_hz: 1920")
    assert open_file(dat, format_file=dat.parent / "format.yaml").rate_hz == 1920
    with pytest.raises(UsageError, match="not both"):
        open_file(dat, ["height=6"], dat.parent / "format.yaml")


def test_the_camera_file_beside_it_is_read(dat: Path):
    (dat.parent / "camera.yaml").write_text("threshold: 4.0")
    assert open_file(dat, ["height=6", "width=16"]).camera == {"threshold": 4.0}


def test_arrays_are_read_along_their_axes(tmp_path: Path):
    np.savez(tmp_path / "a.npz", spk=SPIKES.transpose(1, 2, 0))
    source = open_file(tmp_path / "a.npz", ["height=6", "width=16", "axes=HWT", "flip=none"])
    assert np.array_equal(unpack_rows(source.packed(2, 5), 16), SPIKES[2:5])


def test_the_axes_of_a_real_array_are_found(shared_data: Path):
    source = open_file(shared_data / "real_npz" / "spikingsim_real_spike.npz")
    assert source.shape == (500, 250, 400) and "as found: HWT, flip none" in source.how


def test_the_real_gopro_stream_is_recognised(shared_data: Path):
    source = open_file(shared_data / "gopro_spike_pair" / "000226.dat")
    assert source.shape == (88, 360, 640) and "as found: lsb, flip vertical" in source.how


def test_noise_is_not_recognised_as_anything(tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(np.random.default_rng(0).bytes(250 * 400 // 8 * 9))
    (tmp_path / "b.dat").write_bytes(b"odd")
    for name, problem in (("a.dat", "reaches -?0.0"), ("b.dat", "none is known")):
        with pytest.raises(FormatError, match=problem) as caught:
            open_file(tmp_path / name)
        assert "declare height and width" in caught.value.fix


def test_refuses_wrong_settings_by_name(dat: Path):
    with pytest.raises(ConfigError, match="did you mean 'height'"):
        open_file(dat, ["hieght=6", "width=16"])
    with pytest.raises(FormatError, match="whole number"):
        open_file(dat, ["height=7", "width=16"])
    with pytest.raises(FormatError, match="no such file"):
        open_file(dat.parent / "none.dat", ["height=6", "width=16"])
