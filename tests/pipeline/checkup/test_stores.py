from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.checkup.stores import check_store, is_store
from pipeline.errors import StoreError

USUAL = {"voxel_names": ("k4",), "splits": {"train": ["a"], "val": ["b"]}}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch):
    """Have `open_store` give a store with these attributes."""

    def make(**changes: object) -> None:
        facts = {"name": "x", "sequence_keys": [("train", "a")], "stages": ("ingest",), **USUAL, **changes}
        normalization = SimpleNamespace(num_bins=4)
        store = SimpleNamespace(normalization=lambda name: normalization, **facts)
        monkeypatch.setattr("pipeline.store.open_store", lambda path: store)

    return make


def test_a_store_that_can_be_trained_on(opened) -> None:
    opened()
    found = list(check_store(Path("store")))
    assert [one.status for one in found] == ["ok", "ok"] and "k4 of 4 bins" in found[1].found


def test_a_store_without_voxel_grids_is_a_problem(opened) -> None:
    opened(voxel_names=())
    *_, found = check_store(Path("my store"))
    assert (found.status, found.fix) == ("problem", "spk voxelize 'my store'")


def test_a_split_without_sequences_is_worth_knowing(opened) -> None:
    opened(splits={"train": ["a"], "val": []})
    *_, found = check_store(Path("store"))
    assert found.status == "note" and "'val'" in found.found


def test_a_store_that_does_not_open_says_why(tmp_path: Path) -> None:
    assert not is_store(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    assert is_store(tmp_path)
    with pytest.raises(StoreError):
        list(check_store(tmp_path))
