import io
import zipfile

import numpy as np
import pytest

from pipeline.arrays import map_npy, npz_headers, read_npz
from pipeline.errors import FormatError


def test_maps_without_reading_and_without_writing(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    array = map_npy(tmp_path / "a.npy")
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not array.flags.writeable


def test_takes_the_only_array_or_the_one_named(tmp_path):
    np.savez(tmp_path / "one.npz", np.arange(3))
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.arange(4))
    assert read_npz(tmp_path / "one.npz", None).tolist() == [0, 1, 2]
    assert read_npz(tmp_path / "two.npz", "b").tolist() == [0, 1, 2, 3]
    with pytest.raises(FormatError, match="several arrays; it holds a, b"):
        read_npz(tmp_path / "two.npz", None)
    with pytest.raises(FormatError, match="no array 'c'"):
        read_npz(tmp_path / "two.npz", "c")


def test_refuses_damaged_and_dangerous_files(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", np.arange(1000))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped.npz").write_bytes(data[:200] + bytes([data[200] ^ 0xFF]) + data[201:])
    (tmp_path / "text.npy").write_bytes(b"not an array at all")
    for name in ("cut.npz", "flipped.npz"):
        with pytest.raises(FormatError, match=r"not a readable \.npz"):
            read_npz(tmp_path / name, None)
    for name in ("text.npy", "objects.npy"):
        with pytest.raises(FormatError, match=r"not a readable \.npy"):
            map_npy(tmp_path / name)


def test_refuses_a_small_file_that_unpacks_to_a_huge_one(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (1 << 40, 1, 1), "fortran_order": False, "descr": "|u1"}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(FormatError, match="unpacks to 1099511627776 bytes"):
        read_npz(tmp_path / "bomb.npz", None)


def test_headers_tell_what_an_npz_holds_without_reading_it(tmp_path):
    np.savez(tmp_path / "a.npz", spk=np.zeros((2, 3), np.uint8), names=np.array(["x"], object))
    headers = npz_headers(tmp_path / "a.npz")
    assert headers == {"spk": ((2, 3), np.dtype(np.uint8)), "names": ((1,), np.dtype(object))}
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    with pytest.raises(FormatError, match=r"b.npz: not a readable .npz"):
        npz_headers(tmp_path / "b.npz")


def test_refuses_an_archive_that_holds_less_than_its_header_says(tmp_path):
    np.savez(tmp_path / "whole.npz", a=np.zeros((2, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        cut.writestr("a.npy", whole.read("a.npy")[:-1])
    with pytest.raises(FormatError, match=r"a has not the size of an array of shape \(2, 3\)"):
        read_npz(tmp_path / "cut.npz", None)


@pytest.mark.parametrize("place", [10, 40, 60, 100])
def test_refuses_headers_that_are_no_python(tmp_path, place):
    np.save(tmp_path / "a.npy", np.zeros(3, np.uint8))
    data = bytearray((tmp_path / "a.npy").read_bytes())
    data[place : place + 2] = b"(\0"
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(FormatError, match=r"not a readable \.npy"):
        map_npy(tmp_path / "a.npy")
