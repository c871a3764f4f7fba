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
from pipeline.storage.shards import ArrayLayout, Index, Receipt, shard_key, write_shard

Region = tuple[slice, ...]


class BlockSource(Protocol):
    """Where a piece's values come from. Sent to workers, so it holds paths, never data."""

    def block(self, region: Region) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """The values of a region of the array, and a JSON summary of them for whoever assembles the array."""
        ...


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One shard to build: where it goes, how it is laid out, where its values come from.

    Attributes:
        inputs: fingerprint of everything that determines the values; a receipt with another one is void.
    """

    array: Path
    layout: ArrayLayout
    shard: Index
    source: BlockSource
    inputs: str
    receipts: Path

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
    """Write one shard and its receipt, unless a receipt shows that it is there already."""
    if (earlier := _earlier(piece)) is not None:
        return earlier
    values, summary = piece.source.block(piece.layout.region(piece.shard))
    piece.receipt_path.unlink(missing_ok=True)  # it is not of the bytes that follow
    receipt = write_shard(piece.array, piece.layout, piece.shard, values)
    ship(piece.array / receipt.key)
    note = {"inputs": piece.inputs, "size": receipt.size, "seal": receipt.seal, "summary": summary}
    write_atomic(piece.receipt_path, json.dumps(note))
    return Built(piece=piece, receipt=receipt, summary=summary, written=True)


def _earlier(piece: Piece) -> Built | None:
    key = shard_key(piece.shard)
    try:
        note = json.loads(piece.receipt_path.read_bytes())
        if note["inputs"] != piece.inputs or not is_there(piece.array / key, note["size"]):
            return None
        receipt = Receipt(key, note["size"], note["seal"])
        return Built(piece=piece, receipt=receipt, summary=note["summary"], written=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no receipt, or one cut short: the piece is built again
