import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.storage.pieces import Piece, WholeBlock, build_piece
from pipeline.storage.shards import ArrayLayout

LAYOUT = ArrayLayout(shape=(6, 2), shard=(2, 2), chunk=(1, 2), names=("x", "y"))


@dataclass(frozen=True)
class Numbers:
    read: list = field(default_factory=list)

    def open(self, region):
        self.read.append(region[0].start)
        values = np.arange(12, dtype=np.uint8).reshape(6, 2)[region]
        return WholeBlock(region, values, {"sum": int(values.sum())})


@pytest.fixture
def piece(tmp_path):
    def make(inputs="i"):
        return Piece(
            array=tmp_path / "a",
            layout=LAYOUT,
            shard=(1, 0),
            source=Numbers(),
            inputs=inputs,
            receipts=tmp_path / "receipts",
        )

    return make


def test_a_piece_that_is_there_is_not_built_again(piece, tmp_path):
    first, second = build_piece(piece()), build_piece(again := piece())
    assert first.written and not second.written and again.source.read == []
    assert second.receipt == first.receipt and second.summary == {"sum": 4 + 5 + 6 + 7}
    assert (tmp_path / "a/c/1/0").stat().st_size == first.receipt.size


def test_a_piece_of_other_inputs_or_without_its_bytes_is_built(piece, tmp_path):
    build_piece(piece())
    assert build_piece(piece("other")).written
    (tmp_path / "a/c/1/0").unlink()
    assert build_piece(piece("other")).written


@dataclass
class Once:
    """A block that keeps one chunk at a time, and says in which order they were asked for."""

    asked: list = field(default_factory=list)

    def open(self, region):
        self.room = np.empty((1, 2), np.uint8)
        return self

    def chunk(self, part):
        self.asked.append([(p.start, p.stop) for p in part])
        self.room.fill(len(self.asked))
        return self.room

    def summary(self):
        return {"chunks": len(self.asked)}


def test_chunks_are_asked_for_in_order_and_may_share_memory(piece, tmp_path):
    built = build_piece(dataclasses.replace(piece(), source=Once()))
    assert built.summary == {"chunks": 2}
    assert built.piece.source.asked == [[(2, 3), (0, 2)], [(3, 4), (0, 2)]]
    written = (tmp_path / "a/c/1/0").read_bytes()
    assert (written[:2], written[6:8]) == (b"\x01\x01", b"\x02\x02")


def test_a_whole_block_is_cut_by_parts_of_the_array():
    values = np.arange(12).reshape(6, 2)
    block = WholeBlock((slice(2, 6), slice(0, 2)), values[2:6])
    assert block.chunk((slice(4, 6), slice(1, 2))).tolist() == [[9], [11]] and block.summary() == {}


def test_of_a_piece_that_is_not_stored_only_the_summary_is_kept(piece, tmp_path):
    looked_at = dataclasses.replace(piece(), source=Once(), stored=False)
    first, again = build_piece(looked_at), build_piece(looked_at)
    assert (first.written, again.written) == (True, False) and first.receipt == again.receipt
    assert first.summary == again.summary == {"chunks": 2} and len(looked_at.source.asked) == 2
    assert not (tmp_path / "a").exists()
