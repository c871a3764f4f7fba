"""The ```python blocks of the pages run, and what the page about the store shows is so."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import open_store
from tests.docs.pages import PAGES, REPOSITORY, blocks
from tests.docs.world import MAKERS, World

STORE_PAGE = REPOSITORY / "docs" / "store.md"
SNIPPETS = [block for page in PAGES for block in blocks(page, "python")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, catalogue) -> Path:
    """A folder with what the snippets speak of, under the names that they use."""
    world = World(tmp_path_factory.mktemp("snippets"), STORE_PAGE, catalogue)
    world.provide(
        ["python", *(name for name in MAKERS if any(f'"{name}' in block.text for block in SNIPPETS))]
    )
    return world.folder


def run(block, folder, monkeypatch):
    """The names that a snippet leaves behind."""
    for module in re.findall(r"^import (\w+)", block.text, re.MULTILINE):
        pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec"), names)  # the point of it
    return names


def snippet(word):
    (found,) = [block for block in blocks(STORE_PAGE, "python") if word in block.text]
    return found


def test_snippets_stand_where_a_test_runs_them():
    assert not [str(block) for block in SNIPPETS if block.page != STORE_PAGE]


def test_there_are_no_snippets_about_the_store_without_a_test():
    assert len(blocks(STORE_PAGE, "python")) == 4


def test_zarr_python_reads_as_the_page_says(folder, monkeypatch):
    names = run(snippet("import zarr"), folder, monkeypatch)
    counts, spikes, normalized = names["counts"], names["spikes"], names["normalized"]
    np.testing.assert_array_equal(
        counts.sum(axis=0), spikes.sum(axis=0)
    )  # every spike of the exposure is in a bin
    assert counts.shape == (32, 64, 64) and len(spikes) == 32
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
    figure = blocks(STORE_PAGE, "text")[0].text
    nodes = {file.parent.name for file in (folder / "STORE/train/train_0000").rglob("zarr.json")}
    assert not [name for name in nodes - {"voxels"} if name not in figure]
