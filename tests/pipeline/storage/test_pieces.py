from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.storage.pieces import Piece, build_piece
from pipeline.storage.shards import ArrayLayout

LAYOUT = ArrayLayout(shape=(6, 2), shard=(2, 2), chunk=(1, 2), names=("x", "y"))


@dataclass(frozen=True)
class Numbers:
    read: list = field(default_factory=list)

    def block(self, region):
        self.read.append(region[0].start)
        values = np.arange(12, dtype=np.uint8).reshape(6, 2)[region]
        return values, {"sum": int(values.sum())}


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
