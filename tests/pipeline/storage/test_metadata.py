import json
import os

import pytest

from pipeline.errors import StoreError
from pipeline.storage import metadata
from pipeline.storage.metadata import check_sizes, metadata_bytes, parse_metadata, read_metadata


@pytest.fixture
def node(tmp_path):
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"a": 1}}))
    return tmp_path


def test_reads_what_is_there(node):
    assert read_metadata(node) == {"attributes": {"a": 1}}
    assert parse_metadata(node, metadata_bytes(node)) == read_metadata(node)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"attributes": []}', "[" * 100_000, "\xff"])
def test_refuses_what_is_no_metadata_by_name(node, text):
    (node / "zarr.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=str(node / "zarr.json")):
        read_metadata(node)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_refuses_what_is_no_ordinary_file_without_waiting_for_it(tmp_path, make):
    make(tmp_path / "zarr.json")
    with pytest.raises(StoreError, match=r"zarr\.json"):
        read_metadata(tmp_path)


def test_refuses_metadata_without_end(node, monkeypatch):
    monkeypatch.setattr(metadata, "MAX_METADATA_BYTES", 10)
    with pytest.raises(StoreError, match="more than 10 bytes"):
        read_metadata(node)


def test_compares_the_files_with_the_ledger(node):
    (node / "c").mkdir()
    (node / "c" / "0").write_bytes(b"abc")
    check_sizes(node, {"attributes": {}})
    check_sizes(node, {"attributes": {"ledger": {"c/0": [3, 9]}}})
    for ledger, problem in (
        ({"c/0": [4, 9]}, "3 bytes, but 4 were written"),
        ({"c/1": [3, 9]}, "shard is missing"),
        ({"c": [3, 9]}, "not an ordinary file"),
        ({"../zarr.json": [3, 9]}, "not as spk writes it"),
        ({"c/0": 3}, "not as spk writes it"),
        ([], "not as spk writes it"),
    ):
        with pytest.raises(StoreError, match=problem):
            check_sizes(node, {"attributes": {"ledger": ledger}})
