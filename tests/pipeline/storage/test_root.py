import json

import pytest
import zarr

from pipeline.errors import StoreError, UsageError
from pipeline.files import write_atomic
from pipeline.storage.root import (
    SPK_FORMAT,
    WORK,
    encoded,
    program_version,
    read_root,
    require_store_or_nothing,
    root_metadata,
    sequence_keys,
)

ATTRIBUTES = {
    "spk_format": SPK_FORMAT,
    "name": "x",
    "scale": 2,
    "splits": {"train": ["a", "b"], "test": ["c"]},
}


def write(store, attributes, stages):
    write_atomic(store / "zarr.json", encoded(root_metadata(attributes, stages)))


@pytest.fixture
def store(tmp_path):
    write(tmp_path, ATTRIBUTES, {"ingest": {"sequences": {}}})
    return tmp_path


def test_there_and_back(store):
    found = read_root(store)
    assert {key: found[key] for key in ATTRIBUTES} == ATTRIBUTES
    assert found["stages"] == {"ingest": {"sequences": {}}}
    assert sequence_keys(found) == ["train/a", "train/b", "test/c"]
    assert zarr.open_group(store, mode="r").attrs["name"] == "x"


def test_no_root_is_no_store(tmp_path):
    assert read_root(tmp_path) is None


def test_the_fingerprint_changes_with_the_content_and_not_with_its_origin(store):
    first = read_root(store)["fingerprint"]
    write(store, ATTRIBUTES | {"provenance": {"raw": "elsewhere"}}, {"ingest": {"sequences": {}}})
    assert read_root(store)["fingerprint"] == first
    write(store, ATTRIBUTES, {"ingest": {"sequences": {"train/a": {}}}})
    assert read_root(store)["fingerprint"] != first


def test_every_flipped_bit_is_refused_by_name_or_means_the_same(store):
    file = store / "zarr.json"
    whole, attributes = file.read_bytes(), read_root(store)
    refused = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 7
        file.write_bytes(flipped)
        try:
            assert read_root(store) == attributes and json.loads(flipped) == json.loads(whole)  # white space
        except StoreError as error:
            assert str(store) in error.problem
            refused += 1
    assert refused > 0.8 * len(whole)


def test_refuses_other_groups_and_other_versions(store):
    zarr.open_group(store / "other", mode="w")
    with pytest.raises(StoreError, match="not a store of spk"):
        read_root(store / "other")
    text = (store / "zarr.json").read_text().replace(f'"spk_format": {SPK_FORMAT}', '"spk_format": 99')
    (store / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match="spk_format is 99, this program reads 1"):
        read_root(store)


def test_accepts_nothing_an_empty_folder_a_store_and_an_interrupted_one(tmp_path, store):
    require_store_or_nothing(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    require_store_or_nothing(tmp_path / "empty")
    require_store_or_nothing(store)
    (tmp_path / "cut" / WORK).mkdir(parents=True)
    require_store_or_nothing(tmp_path / "cut")


def test_refuses_files_and_folders_of_other_things(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a directory"):
        require_store_or_nothing(tmp_path / "file")
    with pytest.raises(UsageError, match="not a store"):
        require_store_or_nothing(tmp_path)
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {}}))
    with pytest.raises(UsageError, match="not a store"):
        require_store_or_nothing(tmp_path)


def test_the_version_is_told():
    assert program_version()


@pytest.mark.parametrize(
    ("splits", "stages"),
    [
        ({"../x": ["a"]}, {}),
        ({"train": ["../../x"]}, {}),
        ({"train": ["/etc"]}, {}),
        ({"train": [3]}, {}),
        ({"train": 3}, {}),
        ({"train": ["a"]}, {"ingest": {"sequences": {"train/a": {"../../x": "0"}}}}),
        ({"train": ["a"]}, {"ingest": {"stats": {"/etc": "0"}}}),
        ({"train": ["a"]}, {"ingest": 3}),
    ],
)
def test_refuses_places_outside_even_under_the_right_checksum(tmp_path, splits, stages):
    write(tmp_path, ATTRIBUTES | {"splits": splits}, stages)
    with pytest.raises(StoreError, match="splits and stages are not as spk writes them"):
        read_root(tmp_path)
