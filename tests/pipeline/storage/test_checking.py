import numpy as np
import pytest

from pipeline.storage.checking import shard_problem
from pipeline.storage.pieces import Piece, WholeBlock, build_piece
from pipeline.storage.shards import ArrayLayout

LAYOUT = ArrayLayout(shape=(5, 4), shard=(6, 4), chunk=(2, 4), names=("x", "y"))


class Numbers:
    def open(self, region):
        return WholeBlock(region, np.arange(20, dtype=np.uint8).reshape(5, 4)[region])


@pytest.fixture
def shard(tmp_path):
    piece = Piece(
        array=tmp_path, layout=LAYOUT, shard=(0, 0), source=Numbers(), inputs="", receipts=tmp_path / "r"
    )
    return tmp_path / "c/0/0", build_piece(piece).receipt


def test_a_whole_shard_has_no_problem(shard):
    path, receipt = shard
    assert shard_problem(path, LAYOUT, receipt, deep=False) is None
    assert shard_problem(path, LAYOUT, receipt, deep=True) is None


def test_every_flipped_bit_is_a_problem(shard):
    path, receipt = shard
    whole = path.read_bytes()
    for number in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[number // 8] ^= 1 << number % 8
        path.write_bytes(flipped)
        assert shard_problem(path, LAYOUT, receipt, deep=True), number
        assert shard_problem(path, LAYOUT, receipt, deep=False) is None


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_no_shard_of_that_size_is_a_problem(shard, deep):
    path, receipt = shard
    whole = path.read_bytes()
    for data in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(data)
        assert (
            shard_problem(path, LAYOUT, receipt, deep=deep)
            == f"{len(data)} bytes, but {len(whole)} were written"
        )
    path.unlink()
    assert shard_problem(path, LAYOUT, receipt, deep=deep) == "missing"
    path.symlink_to("elsewhere")
    assert shard_problem(path, LAYOUT, receipt, deep=deep) == "not an ordinary file"
