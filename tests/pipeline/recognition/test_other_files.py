import gzip
import io
import zipfile

import numpy as np
import pytest

from pipeline.errors import FormatError
from pipeline.recognition.other_files import refuse_other_files


def made(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, np.zeros(9, np.uint8))
    elif kind == "npz":
        np.savez(file, spk=np.zeros(9, np.uint8))
    elif kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.dat", bytes(9))
    elif kind == "gzip":
        file.write(gzip.compress(bytes(9), mtime=0))
    return file.getvalue()


@pytest.mark.parametrize(
    ("begins", "name"),
    [
        (b"% Data file containing CD events.\n% Version 2\n", "a Prophesee event camera"),
        (b"% evt 3.0\n", "a Prophesee event camera"),
        (b"#!AER-DAT2.0\r\n", r"a DVS or DAVIS \(AEDAT\) event camera"),
        (made("npy"), "is a NumPy array"),
        (made("npz"), "is a zip archive"),
        (made("zip"), "is a zip archive"),
        (made("gzip"), "is a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
    ],
)
def test_what_is_no_spike_stream_is_refused_by_name(tmp_path, begins, name):
    path = tmp_path / "a.dat"
    path.write_bytes(begins + bytes(100))
    with pytest.raises(FormatError, match=name) as caught:
        refuse_other_files(path)
    assert str(path) in caught.value.problem


@pytest.mark.parametrize("begins", [b"", b"%", b"%\n", b"\x89PN", b"% " + bytes(50), b"%" * 300])
def test_a_few_bytes_in_common_are_not_enough(tmp_path, begins):
    (tmp_path / "a.dat").write_bytes(begins)
    refuse_other_files(tmp_path / "a.dat")
