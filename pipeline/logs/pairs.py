"""Logs of the dialect "pairs": two lines for each frame, a time stamp and an exposure time, and no names.

    >unix standard time stamp:1763626982s,598990us
    Exp Time:13265 us,Gain:1

The microseconds are not padded: `983s,27382us` is 983.027382 s. Known from the recordings of CVSRealDeblur
(Hugging Face, mypThu/CVSRealDeblurData).
"""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

from pipeline.logs.dialects import PAIRS_FIRST_LINE
from pipeline.logs.rows import UNITS_NS, BadRow, LoggedExposure, Row, RowError, exact_ns, span_around

_STAMP = re.compile(re.escape(PAIRS_FIRST_LINE) + r"\s*([0-9]{1,11})s,\s*([0-9]{1,6})us")
_LENGTH = re.compile(
    r"Exp Time:\s*([0-9]{1,12}(?:\.[0-9]{0,9})?)\s*(ns|us|ms|s),\s*Gain:\s*[0-9]+(?:\.[0-9]*)?"
)


def read_pairs(lines: Iterable[tuple[int, str]], stamp: str) -> Iterator[Row | BadRow]:
    """Read the (line number, text) of a log, pair by pair; the frame of the k-th pair is called k.

    A first line without its second one, or the reverse, is the pair of a frame all the same, and cannot be used.

    Args:
        stamp: what the stamp is of the exposure: "start", "middle" or "end".
    """
    for place, pair in enumerate(_paired(lines)):
        line, text = pair[0]
        try:
            yield _parse([text for _, text in pair], line, place, "stop" if stamp == "end" else stamp)
        except RowError as problem:
            yield BadRow(line=line, reason=f"{problem} in {text[:120]!r}", frame=str(place))


def _paired(lines: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    pair: list[tuple[int, str]] = []
    for line in lines:
        if pair and (line[1].startswith(">") or len(pair) == 2):
            yield pair
            pair = []
        pair.append(line)
        if not pair[0][1].startswith(">"):  # a second line whose first one is missing
            yield pair
            pair = []
    if pair:
        yield pair


def _parse(pair: list[str], line: int, place: int, what: str) -> Row:
    stamp = _STAMP.fullmatch(pair[0])
    if stamp is None:
        raise RowError("no time stamp")
    if len(pair) < 2:
        raise RowError("no line with an exposure time after this one")
    length = _LENGTH.fullmatch(pair[1])
    if length is None:
        raise RowError(f"no exposure time in the line {pair[1][:120]!r} after the one")
    stamp_ns = int(stamp[1]) * UNITS_NS["s"] + int(stamp[2]) * UNITS_NS["us"]
    unit_ns = UNITS_NS[length[2]]
    length_ns, places = exact_ns(length[1], unit_ns, "exposure time")
    if length_ns == 0:
        raise RowError("an exposure time of 0")
    start, stop = span_around(what, stamp_ns, length_ns)
    return Row(
        exposure=LoggedExposure(frame=str(place), sequence=None, start=start, stop=stop, line=line),
        sync=None,
        resolution=UNITS_NS["us"] + Fraction(unit_ns, 10**places),
    )
