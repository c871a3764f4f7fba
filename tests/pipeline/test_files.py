import os

import pytest

from pipeline import files
from pipeline.errors import UsageError
from pipeline.files import atomic_file, can_be_path, remove_partial, safe_join, sha256_of, write_atomic


def test_writes_bytes_and_text_into_new_folders(tmp_path):
    write_atomic(tmp_path / "a/b/text", "ü")
    write_atomic(tmp_path / "a/b/bytes", b"\x00\xff")
    assert (tmp_path / "a/b/text").read_bytes() == b"\xc3\xbc"
    assert (tmp_path / "a/b/bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a/b/text").stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(tmp_path / "a/b")) == ["bytes", "text"]


def test_an_error_leaves_the_old_bytes_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError, match="disk"), atomic_file(path) as file:
        file.write(b"half of the n")
        raise RuntimeError("disk")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"all")
        file.flush()
        assert not path.exists()
        (partial,) = os.listdir(tmp_path)
        assert partial.startswith(".file.") and partial.endswith(files.PARTIAL)
    assert path.read_bytes() == b"all"


def test_bytes_are_synced_before_the_rename_and_names_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]))
        fsync(descriptor)

    def noted_replace(*names):
        calls.append(("replace", names[1].name))
        replace(*names)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomic(tmp_path / "new" / "file", "x")
    kinds = [(kind, name if not name.endswith(files.PARTIAL) else "partial") for kind, name in calls]
    expected = [("fsync", tmp_path.name), ("fsync", "partial"), ("replace", "file"), ("fsync", "new")]
    assert kinds == expected


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "a/.."])
def test_refuses_paths_that_climb_out(tmp_path, relative):
    with pytest.raises(UsageError, match="must stay inside"):
        safe_join(tmp_path, relative)


def test_refuses_links_that_lead_out(tmp_path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    (root / "fine").symlink_to(root / "in")
    with pytest.raises(UsageError, match="leads out"):
        safe_join(root, "link/x")
    assert safe_join(root, "fine/x") == root / "fine/x"


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def test_refuses_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="cannot be followed"):
        safe_join(tmp_path, "a")


def test_knows_what_no_file_can_be_called():
    assert can_be_path("a/é\n\udcff") and not can_be_path("a\0") and not can_be_path("\ud800")


def test_what_killed_processes_were_writing_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "mine.partial").touch()
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x"):
        remove_partial(tmp_path)  # as if the writer were dead
    assert [path.name for path in tmp_path.iterdir()] == ["mine.partial"]
