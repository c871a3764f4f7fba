"""Pieces of a store: one shard each, written whole with a receipt that says so, and never written twice.

A piece's bytes are written and fsynced, then the receipt; a stage that is run again skips the pieces whose receipt
still fits.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from pipeline.files import write_atomic
from pipeline.storage.mirror import is_there, ship
from pipeline.storage.shards import ArrayLayout, Index, Receipt, Region, inside, shard_key, write_chunks


class Block(Protocol):
    """The values of one shard on their way to it, an inner chunk at a time: no shard has to fit into memory."""

    def chunk(self, part: Region) -> npt.NDArray[Any]:
        """The values of a part of the array. The next call may overwrite them.

        Args:
            part: an inner chunk, or what of it is in the array. All parts of the block's region are asked for, each
                once, last axis fastest.
        """
        ...

    def summary(self) -> dict[str, Any]:
        """What to tell, as JSON, whoever assembles the array; asked for after the last chunk."""
        ...


class BlockSource(Protocol):
    """Where a piece's values come from. Sent to workers, so it holds paths, never data."""

    def open(self, region: Region) -> Block:
        """The values of a region of the array."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class WholeBlock:
    """A block of values that are small enough to be there all at once."""

    region: Region
    values: npt.NDArray[Any]
    about: dict[str, Any] = field(default_factory=dict)

    def chunk(self, part: Region) -> npt.NDArray[Any]:
        return self.values[inside(part, self.region)]

    def summary(self) -> dict[str, Any]:
        return self.about


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One shard to build: where it goes, how it is laid out, where its values come from.

    Attributes:
        inputs: fingerprint of everything that determines the values; a receipt with another one is void.
        stored: if not, the values are only looked at, for the summary of them.
    """

    array: Path
    layout: ArrayLayout
    shard: Index
    source: BlockSource
    inputs: str
    receipts: Path
    stored: bool = True

    def __str__(self) -> str:
        return f"{self.array / shard_key(self.shard)}"

    @property
    def receipt_path(self) -> Path:
        return self.receipts / f"{'-'.join(map(str, self.shard))}.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A piece that is on disk, and whether this run had to write it."""

    piece: Piece
    receipt: Receipt
    summary: dict[str, Any] = field(default_factory=dict)
    written: bool


def build_piece(piece: Piece) -> Built:
    """Write one shard and its receipt, unless a receipt shows that it is there already.

    Of a piece that is not stored there is the receipt alone, which says that its shard takes no bytes.
    """
    if (earlier := _earlier(piece)) is not None:
        return earlier
    block = piece.source.open(piece.layout.region(piece.shard))
    piece.receipt_path.unlink(missing_ok=True)  # it is not of the bytes that follow
    if piece.stored:
        receipt = write_chunks(piece.array, piece.layout, piece.shard, block.chunk)
        ship(piece.array / receipt.key)
    else:
        receipt = Receipt(shard_key(piece.shard), size=0, seal=0)
        for _, part in piece.layout.parts(piece.shard):
            block.chunk(part)
    summary = block.summary()
    note = {"inputs": piece.inputs, "size": receipt.size, "seal": receipt.seal, "summary": summary}
    write_atomic(piece.receipt_path, json.dumps(note))
    return Built(piece=piece, receipt=receipt, summary=summary, written=True)


def _earlier(piece: Piece) -> Built | None:
    key = shard_key(piece.shard)
    try:
        note = json.loads(piece.receipt_path.read_bytes())
        if note["inputs"] != piece.inputs:
            return None
        if piece.stored and not is_there(piece.array / key, note["size"]):
            return None
        receipt = Receipt(key, note["size"], note["seal"])
        return Built(piece=piece, receipt=receipt, summary=note["summary"], written=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no receipt, or one cut short: the piece is built again
