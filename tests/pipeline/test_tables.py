"""The tables of a sequence carry the fit of every frame, and follow what it depends on."""

import numpy as np
import pytest

from pipeline.ingest import ingest
from pipeline.physics import fit_light
from pipeline.sequence_jobs import sequence_jobs
from pipeline.store import TABLES, open_store
from pipeline.tables import Lit, table_jobs


@pytest.fixture
def store(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    return open_store(tmp_path / "store")


def test_every_frame_is_fitted_to_the_spikes_of_its_exposure(store, raw):
    sequence = store.sequence("train", "a")
    spikes = raw.spikes("train/a")
    for k, (start, stop) in enumerate(raw.spans["train/a"]):
        wanted = fit_light(sequence.blurry[k], spikes[start:stop].sum(axis=0, dtype=np.int64), 2)
        found = sequence.light[k]
        assert found.gamma == wanted.gamma
        assert found.r2 == pytest.approx(wanted.r2, abs=1e-6) and found.slope == pytest.approx(
            wanted.slope, abs=1e-6
        )


def test_frames_made_from_spikes_are_not_fitted_to_them(raw, tmp_path, manifest_of):
    layout = {"spikes": "{split}/{sequence}/spikes.dat", "log": "{split}/{sequence}/exposures.csv"}
    manifest = manifest_of(
        layout=layout | {"sharp": "{split}/{sequence}/sharp/{frame}.png"}, blurry_from_spikes=2.0, scale=2
    )
    ingest(raw.root, tmp_path / "grey", manifest)
    assert open_store(tmp_path / "grey").sequence("train", "a").light == ()


def test_a_fit_depends_on_both_arrays_and_on_the_exposures(tmp_path):
    tables = {name: np.array([[1, 2]] if "exposure" in name else [1], np.int64) for name in TABLES}

    def keys(inputs, **changes):
        lit = Lit(places=(tmp_path,), width=8, scale=1, inputs=inputs)
        return [job.key for job in table_jobs(tmp_path, tables | changes, lit)]

    exposure, *others = keys(("a", "b"))
    assert keys(("a", "b")) == [exposure, *others]
    for inputs in (("a", "c"), ("c", "b")):
        changed, *same = keys(inputs)
        assert changed != exposure and same == others
    assert keys(("a", "b"), exposure=np.array([[1, 3]], np.int64))[0] != exposure


def test_jobs_of_ingest_use_them(raw, tmp_path):
    from pipeline.examine import examine_recording
    from pipeline.recordings import find_recordings

    one, _ = examine_recording(find_recordings(raw.manifest, raw.root)[0], raw.manifest)
    names = [job.array.name for job in sequence_jobs(raw.root, tmp_path, one, raw.manifest).jobs]
    assert names[-3:] == list(TABLES)
