import os

import pytest

from pipeline.errors import FormatError
from pipeline.inputs import read_small_text, require_file


def test_gives_the_size_of_an_ordinary_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert require_file(tmp_path / "a", "test") == 3


def test_names_what_stands_in_the_place_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, words in {
        ".": "directory",
        "pipe": "pipe",
        "empty": "empty",
        "dangling": "no such",
        "x/\0": "read",
    }.items():
        with pytest.raises(FormatError, match=words):
            require_file(tmp_path / name, "test")


def test_reads_text_with_or_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfframe")
    assert read_small_text(tmp_path / "a", "test", 100) == "frame"


def test_refuses_text_that_is_too_long_or_no_text(tmp_path):
    (tmp_path / "long").write_bytes(b"a" * 101)
    (tmp_path / "binary").write_bytes(b"ab\xff")
    with pytest.raises(FormatError, match="101 bytes is more than the 100"):
        read_small_text(tmp_path / "long", "test", 100)
    with pytest.raises(FormatError, match="byte 2 is not UTF-8"):
        read_small_text(tmp_path / "binary", "test", 100)
