"""The page about the store: what it shows works, and what it says of commands is so."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import open_store
from pipeline.voxelize import voxelize

PAGE = (Path(__file__).parents[1] / "docs" / "store.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_scenes):
    """A folder with the store that the page speaks of, under the names that it uses."""
    place = tmp_path_factory.mktemp("docs")
    simulate_scenes(place / "raw", from_overrides(SceneConfig, small_scenes), seed=0)
    ingest(place / "raw", place / "STORE", read_manifest("simulated", []))
    voxelize(place / "STORE")
    return place


def run(code, folder, monkeypatch):
    """The names that a snippet leaves behind."""
    for module in re.findall(r"^import (\w+)", code, re.MULTILINE):
        pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(code, "docs/store.md", "exec"), names)  # the point of it
    return names


def snippet(word):
    (found,) = [code for code in SNIPPETS if word in code]
    return found


def test_there_are_no_snippets_without_a_test():
    assert len(SNIPPETS) == 4


def test_zarr_python_reads_as_the_page_says(folder, monkeypatch):
    names = run(snippet("import zarr"), folder, monkeypatch)
    counts, spikes, normalized = names["counts"], names["spikes"], names["normalized"]
    np.testing.assert_array_equal(
        counts.sum(axis=0), spikes.sum(axis=0)
    )  # every spike of the exposure is in a bin
    assert counts.shape == (32, 48, 48) and len(spikes) == 16
    table = open_store(folder / "STORE").normalization("k32").table()
    np.testing.assert_allclose(normalized, table[counts], rtol=1e-6)


def test_tensorstore_reads_as_the_page_says(folder, monkeypatch):
    names = run(snippet("import tensorstore"), folder, monkeypatch)
    ours = open_store(folder / "STORE").sequence("train", "train_0000").voxels("k32")
    np.testing.assert_array_equal(names["crop"], ours[0:2, :, 0:16, 0:16])


def test_xarray_reads_as_the_page_says(folder, monkeypatch):
    names = run(snippet("import xarray"), folder, monkeypatch)
    blurry = open_store(folder / "STORE").sequence("train", "train_0000").blurry
    assert names["frame"].dims == ("channel", "row", "column")
    np.testing.assert_array_equal(names["frame"].values, blurry[0])
    np.testing.assert_array_equal(names["dataset"]["blurry"].values, blurry[:])


def test_our_own_reader_reads_as_the_page_says(folder, monkeypatch):
    names = run(snippet("from pipeline.store"), folder, monkeypatch)
    assert names["crop"].shape == (2, 32, 16, 16)


def test_the_page_names_what_is_in_a_store(folder):
    figure = PAGE.split("```text\n", 1)[1].split("```", 1)[0]
    nodes = {file.parent.name for file in (folder / "STORE/train/train_0000").rglob("zarr.json")}
    assert not [name for name in nodes - {"voxels"} if name not in figure]
    assert not [line for line in PAGE.splitlines() if len(line) > 120 and not line.startswith("|")]
