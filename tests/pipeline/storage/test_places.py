from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.storage.places import bucket_and_prefix, is_remote, require_folder, shown, url_of


@pytest.mark.parametrize("written", ["s3://bucket/a/b", "s3:/bucket/a/b", "s3://bucket/a/b/"])
def test_a_url_survives_being_a_path(written):
    for place in (written, Path(written)):
        assert is_remote(place)
        assert url_of(place) == "s3://bucket/a/b"
        assert bucket_and_prefix(place) == ("bucket", "a/b")
        assert shown(place) == "s3://bucket/a/b"


def test_a_whole_bucket_is_a_place():
    assert bucket_and_prefix("s3://bucket") == ("bucket", "")
    assert url_of(Path("s3://bucket")) == "s3://bucket"


@pytest.mark.parametrize("folder", ["store", "/data/s3:/x", "./s3", "s3store", "s3:x"])
def test_other_places_are_folders(folder):
    assert not is_remote(folder)
    assert not is_remote(Path(folder))
    assert shown(Path(folder)) == str(Path(folder))


@pytest.mark.parametrize(
    "wrong",
    ["s3://", "s3:///", "s3://B/x", "s3://ab", "s3://bucket/../x", "s3://bucket/a?b", "s3://bucket/a//b"],
)
def test_refuses_what_is_no_place(wrong):
    with pytest.raises(UsageError, match="not a place in an object store"):
        url_of(wrong)


def test_parts_need_a_folder():
    require_folder("folder")
    with pytest.raises(UsageError, match="s3://bucket/set: parts are built in a folder"):
        require_folder("s3:/bucket/set")
