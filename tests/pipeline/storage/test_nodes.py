import hashlib
import json
import shutil

import pytest

from pipeline.errors import StoreError
from pipeline.storage.nodes import ASIDE, BUILDING, Hold, Nodes


def write(folder, value, node_type="group"):
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"zarr_format": 3, "node_type": node_type, "attributes": {"value": value}})
    (folder / "zarr.json").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_node_is_found_by_its_digest_wherever_it_is(tmp_path):
    digest = write(tmp_path / "a/b", 1)
    nodes = Nodes(tmp_path, {"a/b": digest})
    for elsewhere in (tmp_path / BUILDING / "a/b", tmp_path / ASIDE / digest):
        assert nodes.find("a/b").attributes == {"value": 1}
        write(tmp_path / "a/b", 2)
        with pytest.raises(StoreError, match="changed since spk wrote it"):
            nodes.find("a/b")
        write(elsewhere, 1)
        assert nodes.find("a/b").path == elsewhere
        shutil.rmtree(elsewhere)
        write(tmp_path / "a/b", 1)


def test_a_missing_node_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"a/zarr.json is missing"):
        Nodes(tmp_path, {"a": "0" * 64}).find("a")


def test_a_whole_array_elsewhere_stands_in_for_one_that_is_not(tmp_path):
    ledger = {"c/0": [3, 0]}
    digest = write(tmp_path / "a", 1)
    for place in (tmp_path / "a", tmp_path / ASIDE / digest):
        text = json.dumps({"zarr_format": 3, "node_type": "array", "attributes": {"ledger": ledger}})
        place.mkdir(parents=True, exist_ok=True)
        (place / "zarr.json").write_text(text)
    nodes = Nodes(tmp_path, {"a": hashlib.sha256(text.encode()).hexdigest()})
    with pytest.raises(StoreError, match="c/0: shard is missing"):
        nodes.find_whole("a")
    (tmp_path / "a/c").mkdir()
    (tmp_path / "a/c/0").write_bytes(b"abc")
    assert nodes.find_whole("a").path == tmp_path / "a"


def test_a_hold_is_on_the_file_that_was_open(tmp_path):
    write(tmp_path, 1)
    hold = Hold(tmp_path)
    assert hold.is_of(tmp_path)
    (tmp_path / "new.json").write_text("{}")
    (tmp_path / "new.json").replace(tmp_path / "zarr.json")
    assert not hold.is_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        Hold(tmp_path / "nowhere")


def test_a_quick_look_sees_whatever_is_not_whole(tmp_path):
    array = tmp_path / "a"
    (array / "c").mkdir(parents=True)
    (array / "c/0").write_bytes(b"abc")
    text = json.dumps({"attributes": {"ledger": {"c/0": [3, 0]}}})
    (array / "zarr.json").write_text(text)
    nodes = Nodes(tmp_path, {"a": hashlib.sha256(text.encode()).hexdigest(), "b": write(tmp_path / "b", 1)})
    assert nodes.is_whole_in_place("a") and nodes.is_whole_in_place("b")
    (array / "c/0").write_bytes(b"abcd")
    assert not nodes.is_whole_in_place("a")
    (array / "c/0").unlink()
    assert not nodes.is_whole_in_place("a")
    (tmp_path / "abc").write_bytes(b"abc")
    (array / "c/0").symlink_to(tmp_path / "abc")
    assert not nodes.is_whole_in_place("a")
    write(tmp_path / "b", 2)
    assert not nodes.is_whole_in_place("b")
    (tmp_path / "b").rename(tmp_path / "elsewhere")
    assert not nodes.is_whole_in_place("b")
    write(tmp_path / "elsewhere", 1)
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    assert not nodes.is_whole_in_place("b")
