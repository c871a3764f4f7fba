"""After how many bits the next frame of a spike stream begins: the bits themselves tell.

A pixel that fires has used up its charge, and hardly ever fires in the next frame as well. So bits that lie one frame
apart are both set far less often than bits that lie a little nearer or farther: in every recording at hand, real and
simulated, their share dips by 0.9 or more at the frame period, and by 0.06 at most at any other distance below it.
Smoothness cannot tell one frame from two of them one above the other; this can.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Order = Literal["little", "big"]

ORDERS: tuple[Order, ...] = ("little", "big")
MIN_DIP = 0.3
"""Smaller dips are no evidence: noise fires twice in a row as readily as not, and so do pixels in full light."""
MIN_COINCIDENCES = 500
"""Fewer make the dip uncertain by more than a tenth."""
MAX_BYTES = 1 << 20
"""Bytes that are compared; the next megabytes of a recording would say the same."""
NEARBY = (-16, -8, 8, 16)
"""Bits from a frame period to the distances it is compared with: other pixels of the same rows."""
NEXT = (-3, -2, -1, 1, 2, 3)
"""A pattern of the scene may be rarer at a distance than eight pixels on, but it does not end at one pixel."""
MOST_TOGETHER = 8
"""Frames that may pass for one."""
SEARCHED_BITS = 1 << 20
MOST_SEARCHED = 8
"""Bits whose distances are all compared, and the deepest dips among them that are looked at closely."""
SMALLEST_FRAME = 2048
LARGEST_FRAME = 1 << 24


def refractory_dip(data: Bytes, period: int) -> float | None:
    """By which share bits `period` apart are both set less often than at any distance nearby.

    The share is of what is usual nearby or, where that is more, of what chance would give: two parts of a scene that
    are never bright together are no evidence.

    Args:
        data: bytes of a stream, from the beginning of a frame.
        period: in bits.

    Returns:
        1 when no pixel fires twice running, 0 or less when the period is none; None when too little fires to tell.
    """
    # A period of no whole bytes joins bits that the wrong bit order puts elsewhere, so both are tried.
    orders = ORDERS if period % 8 else ORDERS[:1]
    dips = [dip for order in orders if (dip := _dip(data, period, order)) is not None]
    return max(dips, default=None)


def find_period(data: Bytes, periods: Iterable[int]) -> int | None:
    """The smallest of some `periods`, in bits, at which a stream shows its frames; None if it shows none.

    Multiples of the frame period often dip as well, so the smallest one counts.
    """
    dips = {period: refractory_dip(data, period) or 0.0 for period in sorted(set(periods))}
    least = max(MIN_DIP, 0.5 * max(dips.values(), default=0.0))
    return next((period for period, dip in dips.items() if dip >= least), None)


def part_of(data: Bytes, period: int) -> int:
    """The frame period, given one that may be several of them together."""
    return find_period(data, [period // m for m in range(1, MOST_TOGETHER + 1) if period % m == 0]) or period


def search_periods(data: Bytes, num_bytes: int) -> list[int]:
    """Frame sizes that leave fewer than 8 bits of a file over and whose dips stand out, of no whole bytes included.

    All distances at once, from the spectrum of the first bits, in both bit orders; `find_period` then decides.
    """
    found: set[int] = set()
    for order in ORDERS:
        bits = np.unpackbits(data[: SEARCHED_BITS // 8], bitorder=order).astype(np.float32)
        padded = 1 << (3 * len(bits) // 2).bit_length()  # no wrapping around as far as is looked, and fast
        together = np.fft.irfft(np.abs(np.fft.rfft(bits, padded)) ** 2)[: len(bits) // 2 + NEXT[-1] + 1]
        distances = np.arange(SMALLEST_FRAME, len(together) - NEXT[-1])
        distances = distances[(8 * num_bytes) % distances < 8]
        nearby = np.minimum.reduce([together[distances + offset] for offset in NEXT])
        dips = np.where(nearby >= MIN_COINCIDENCES, 1 - together[distances] / np.maximum(nearby, 1), 0)
        deepest = np.argsort(-dips, kind="stable")[:MOST_SEARCHED]
        found.update(distances[deepest][dips[deepest] >= MIN_DIP].tolist())
    return sorted(found)


def possible_periods(num_bytes: int) -> list[int]:
    """Every frame size in bits, of whole bytes, that makes a file at least four whole frames, within reason."""
    first, last = SMALLEST_FRAME // 8, min(LARGEST_FRAME // 8, num_bytes // 4)
    small = (d for d in range(1, min(last, int(num_bytes**0.5)) + 1) if num_bytes % d == 0)
    divisors = {d for one in small for d in (one, num_bytes // one)}
    return sorted(8 * d for d in divisors if first <= d <= last)


def _dip(data: Bytes, period: int, order: Order) -> float | None:
    usual = min(_coincidences(data, period + offset, order) for offset in NEARBY)
    by_chance = _by_chance(data, period)
    if max(usual, by_chance) < MIN_COINCIDENCES:
        return None
    found = _coincidences(data, period, order)
    if usual - found >= MIN_DIP * max(usual, by_chance):  # else the slower comparisons have nothing to refute
        usual = min(usual, *(_coincidences(data, period + offset, order) for offset in NEXT))
    return (usual - found) / max(usual, by_chance, 1)


def _by_chance(data: Bytes, distance: int) -> float:
    """How many bits would coincide that have nothing to do with each other."""
    compared = _compared(data, distance)
    ones = int(np.bitwise_count(data[: max(compared, 0)]).sum(dtype=np.int64))
    return ones * ones / (8 * compared) if compared > 0 else 0.0


def _compared(data: Bytes, distance: int) -> int:
    """Bytes from the beginning on for which there is a byte `distance` bits, and a little, after them."""
    return min((8 * len(data) - distance - NEARBY[-1]) // 8, MAX_BYTES)


def _coincidences(data: Bytes, distance: int, order: Order) -> int:
    """How many of the first bits and the bits `distance` after them are both set, over the same number of bits."""
    compared = _compared(data, distance)
    if compared <= 0 or distance < 0:
        return 0
    whole, shift = divmod(distance, 8)
    first, second = data[:compared], data[whole : whole + compared]
    if not shift:
        return int(np.bitwise_count(first & second).sum(dtype=np.int64))
    following = data[whole + 1 : whole + compared + 1]
    # Times a power of two is a shift to the left that numpy does many bytes at a time; what is too high is dropped.
    if order == "little":
        moved = (second >> np.uint8(shift)) | (following * np.uint8(1 << 8 - shift))
    else:
        moved = (second * np.uint8(1 << shift)) | (following >> np.uint8(8 - shift))
    return int(np.bitwise_count(first & moved).sum(dtype=np.int64))
