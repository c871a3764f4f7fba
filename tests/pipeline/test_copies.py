import pytest
from PIL import Image

from pipeline.copies import refuse_copied_files, refuse_copied_pixels
from pipeline.errors import FormatError


@pytest.fixture
def pair(tmp_path):
    for name, colour in (("blurry.png", 10), ("sharp.png", 200)):
        Image.new("L", (8, 8), colour).save(tmp_path / name)
    return tmp_path / "blurry.png", tmp_path / "sharp.png"


def test_accepts_different_files_of_one_size(pair):
    blurry, sharp = pair
    assert blurry.stat().st_size == sharp.stat().st_size
    refuse_copied_files([blurry, None, blurry], [sharp, sharp, None])


def test_refuses_a_copied_file(pair):
    blurry, sharp = pair
    sharp.write_bytes(blurry.read_bytes())
    with pytest.raises(FormatError, match=r"sharp.png: the sharp frame has the very pixels") as caught:
        refuse_copied_files([blurry], [sharp])
    assert "missing_sharp: test_only" in caught.value.fix


def test_refuses_copied_pixels_by_their_checksums(pair):
    sharp = pair[1]
    refuse_copied_pixels([1, 2, 3], [4, 2, 5], [sharp, None, sharp])
    with pytest.raises(FormatError, match=r"sharp\.png"):
        refuse_copied_pixels([1, 2], [4, 2], [None, sharp])
