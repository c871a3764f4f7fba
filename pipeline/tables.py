"""The tables of a sequence: when each frame was exposed, and how well its image fits the spikes counted then.

The fits are kept with the exposures, whose change changes them, and are made from the store's own arrays.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.alignment.sweeps import Recorded
from pipeline.blocks import Table
from pipeline.fingerprints import fingerprint_of
from pipeline.physics import fit_light
from pipeline.storage.building import ArrayJob
from pipeline.storage.mapped import MappedArray
from pipeline.storage.pieces import WholeBlock
from pipeline.storage.shards import Region, table_layout
from pipeline.store import TABLES

EXPOSURE = "exposure"
LIGHT = "light"
"""Attribute of the exposures: the `physics.LightFit` of every frame, with numbers rounded to `DIGITS`."""
DIGITS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Lit:
    """What fitting the frames of a sequence needs.

    Attributes:
        places: folders in which its `spikes` and `blurry` are finished: each is in the first that has it.
        width: of a spike frame, in pixels.
        scale: RGB pixels per spike pixel.
        inputs: what identifies the two arrays' values.
    """

    places: tuple[Path, ...]
    width: int
    scale: int
    inputs: tuple[str, str]

    def array(self, name: str) -> MappedArray:
        """`spikes` or `blurry`."""
        places = [place / name for place in self.places if (place / name / "zarr.json").is_file()]
        return MappedArray(places[0] if places else self.places[-1] / name)


@dataclass(frozen=True, kw_only=True, slots=True)
class LitExposures:
    """(N, 2) spans of spike frames, each with the fit of its blurry frame."""

    spans: tuple[tuple[int, int], ...]
    lit: Lit

    def open(self, region: Region) -> WholeBlock:
        """The rows of `region`, and their fits."""
        lit = self.lit
        recorded = Recorded(lit.array("spikes"), lit.width, lit.scale)
        blurry = lit.array("blurry")
        fits = [
            fit_light(blurry[k], recorded.count(*span), lit.scale)
            for k, span in list(enumerate(self.spans))[region[0]]
        ]
        rounded = [
            {key: round(value, DIGITS) for key, value in dataclasses.asdict(fit).items()} for fit in fits
        ]
        return WholeBlock(region, np.array(self.spans, np.int64)[region], {LIGHT: rounded})


def table_jobs(
    sequence: Path, tables: Mapping[str, npt.NDArray[np.int64]], lit: Lit | None
) -> list[ArrayJob]:
    """Plan the `TABLES` of a sequence.

    Args:
        lit: for exposures whose blurry frames come from an RGB camera; None where there is nothing to fit.
    """
    return [_table_job(sequence / name, tables[name], lit if name == EXPOSURE else None) for name in TABLES]


def _table_job(array: Path, values: npt.NDArray[np.int64], lit: Lit | None) -> ArrayJob:
    rows = values.tolist()
    layout = table_layout(values.shape, ("frame", "edge")[: values.ndim])
    rows = [tuple(row) for row in rows] if values.ndim > 1 else rows
    if lit is None:
        inputs = fingerprint_of(values.tolist())
        return ArrayJob(array=array, layout=layout, source=Table(values=tuple(rows)), inputs=inputs)
    return ArrayJob(
        array=array,
        layout=layout,
        source=LitExposures(spans=tuple(rows), lit=lit),
        inputs=fingerprint_of([values.tolist(), *lit.inputs]),
        summarise=_join_fits,
    )


def _join_fits(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    return {LIGHT: [fit for summary in summaries for fit in summary[LIGHT]]}
