"""Simulated recordings on disk: there and back, whole or absent, never mixed."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.config import build
from pipeline.dat import open_spikes
from pipeline.errors import UsageError
from pipeline.images import read_rgb
from pipeline.logs.timestamps import read_log
from pipeline.simulation import simulated
from pipeline.simulation.rig import Film, RigConfig
from pipeline.simulation.simulated import claim, sequence_folder, write_sequence
from pipeline.spans import span_of
from pipeline.spike_format import SpikeFormat
from pipeline.yaml_files import read_yaml

RIG = RigConfig(num_frames=3, exposure_frames=11, gap_frames=5, rate_hz=Fraction(1920))


def a_film() -> Film:
    rng = np.random.default_rng(0)
    blurry, sharp = rng.integers(0, 256, (2, 3, 3, 8, 16), dtype=np.uint8)
    return Film(
        blurry=blurry, sharp=sharp, spikes=rng.integers(0, 2, (RIG.spike_frames, 4, 8), dtype=np.uint8)
    )


def test_everything_written_reads_back(tmp_path):
    film = a_film()
    write_sequence(tmp_path, "train", "one", film, RIG)
    folder = sequence_folder(tmp_path, "train", "one")
    for frame in range(3):
        assert np.array_equal(read_rgb(folder / "blurry" / f"{frame:06d}.png"), film.blurry[frame])
        assert np.array_equal(read_rgb(folder / "sharp" / f"{frame:06d}.png"), film.sharp[frame])
    spike_format = build(SpikeFormat, read_yaml(folder / "format.yaml"), "format.yaml")
    stream = open_spikes(folder / "spikes.dat", spike_format)
    assert spike_format.rate_hz == 1920
    assert np.array_equal(stream.read(0, len(stream)), film.spikes)
    facts = read_yaml(folder / "camera.yaml")
    assert facts["camera"]["reset"] == "subtract" and facts["light"] == "linear"


def test_the_log_selects_the_exposures_although_its_stamps_are_rounded(tmp_path):
    """At 1920 Hz a spike frame is 520833.33 ns: no boundary is a whole number of nanoseconds."""
    write_sequence(tmp_path, "train", "one", a_film(), RIG)
    log = read_log(sequence_folder(tmp_path, "train", "one") / "exposures.csv")
    spans = [span_of(row.start, row.stop, RIG.rate_hz, log.resolution_ns)[:2] for row in log.rows]
    assert spans == [tuple(span) for span in RIG.spans.tolist()]
    assert [row.frame for row in log.rows] == ["000000", "000001", "000002"]


def test_a_sequence_that_could_not_be_finished_is_not_there(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError("disk full")

    monkeypatch.setattr(simulated, "write_log", no_space)
    with pytest.raises(OSError, match="disk full"):
        write_sequence(tmp_path, "train", "one", a_film(), RIG)
    assert not (tmp_path / "train").exists()
    monkeypatch.undo()
    write_sequence(tmp_path, "train", "one", a_film(), RIG)  # over what the first attempt left behind
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]


def test_the_same_settings_continue(tmp_path):
    settings = {"seed": 1, "config": RIG}
    assert claim(tmp_path / "out", settings, overwrite=False) is False
    assert claim(tmp_path / "out", settings, overwrite=False) is True


def test_refuses_other_settings_by_name(tmp_path):
    claim(tmp_path, {"seed": 1, "version": 1}, overwrite=False)
    write_sequence(tmp_path, "train", "one", a_film(), RIG)
    with pytest.raises(UsageError, match=r"other settings \(seed differ\)") as caught:
        claim(tmp_path, {"seed": 2, "version": 1}, overwrite=False)
    assert "--overwrite" in caught.value.fix


def test_settings_that_came_to_nothing_can_be_corrected(tmp_path):
    claim(tmp_path, {"seed": 1}, overwrite=False)
    assert claim(tmp_path, {"seed": 2}, overwrite=False) is False
    assert read_yaml(tmp_path / "simulation.yaml") == {"seed": 2}


def test_overwriting_deletes_sequences_and_nothing_else(tmp_path):
    claim(tmp_path, {"seed": 1}, overwrite=False)
    write_sequence(tmp_path, "train", "one", a_film(), RIG)
    (tmp_path / ".partial-val-two").mkdir()
    (tmp_path / "train" / "mine").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, {"seed": 2}, overwrite=True) is False
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["notes.txt", "simulation.yaml", "train", "train/mine"]
    assert read_yaml(tmp_path / "simulation.yaml") == {"seed": 2}


def test_a_dry_run_changes_nothing(tmp_path):
    assert claim(tmp_path / "out", {"seed": 1}, overwrite=False, dry_run=True) is False
    assert not (tmp_path / "out").exists()
    claim(tmp_path, {"seed": 1}, overwrite=False)
    write_sequence(tmp_path, "train", "one", a_film(), RIG)
    assert claim(tmp_path, {"seed": 2}, overwrite=True, dry_run=True) is False
    assert sequence_folder(tmp_path, "train", "one").is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_refuses_a_folder_that_is_no_simulation(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds no simulation\.yaml"):
        claim(tmp_path, {"seed": 1}, overwrite=overwrite)
    with pytest.raises(UsageError, match=r"holds no simulation\.yaml"):
        claim(tmp_path / "thesis.tex", {"seed": 1}, overwrite=overwrite)
