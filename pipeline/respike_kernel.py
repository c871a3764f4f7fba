"""The compiled loops that change spike counts in place, each at the cost of what it changes.

Counts lie in planes, one for each bin of each frame. Random numbers come from a counter that is hashed (Steele et al.,
"Fast Splittable Pseudorandom Number Generators", 2014), so that nothing but the seed decides them.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from pipeline.compiled import compiled

GAIN_BITS = 12
"""Gains are whole numbers of 1 / 2**12."""
MOST_GAIN = 4
MOST_THRESHOLD = 255
"""With counts of 16 bits, integrals up to MOST_THRESHOLD + MOST_GAIN * count in units of a gain fit int32."""

Counts = npt.NDArray[Any]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@compiled(types.uint64(types.uint64))
def mixed(state: np.uint64) -> np.uint64:
    """64 random bits that belong to a state of the counter."""
    z = (state ^ (state >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@compiled(types.float64(types.uint64))
def log_uniform(state: np.uint64) -> float:
    """The logarithm of the number in (0, 1] that belongs to a state of the counter."""
    return math.log((float(mixed(state) >> np.uint64(11)) + 1.0) * 2.0**-53)


def refire(counts: Counts, frames: I64, phase: I32, gain: I32, threshold: int) -> None:
    """Let pixels fire again, with their counts as light.

    Every spike adds its pixel's gain to the integral, and what reaches the threshold is fired at the end of its bin,
    as far as the bin has frames for it. The integral starts each frame of the clip at its phase.

    Args:
        counts: (T, K, P).
        frames: (T, K), spike frames of each bin.
        phase: (T, P), below `threshold`, in units of 1 / 2**GAIN_BITS.
        gain: (P,), below MOST_GAIN, in the same units.
        threshold: in spikes; 1..MOST_THRESHOLD.
    """
    full = threshold << GAIN_BITS
    inverse = 1.0 / full
    integral = np.empty(counts.shape[2], np.int32)
    for t in range(counts.shape[0]):
        for i in range(counts.shape[2]):
            integral[i] = phase[t, i]
        for k in range(counts.shape[1]):
            plane, most = counts[t, k], np.int32(frames[t, k])
            for i in range(len(plane)):
                charge = integral[i] + np.int32(plane[i]) * gain[i]
                # floor(charge / full): half a unit is far from both neighbours, compared with float64's rounding.
                fired = np.int32((charge + 0.5) * inverse)
                integral[i] = charge - fired * full
                plane[i] = min(fired, most)


def lose(counts: Counts, share: float, seed: np.uint64) -> None:
    """Take each spike away with probability `share`, in (0, 1): drawn are the numbers of spikes between losses."""
    flat, scale, state = counts.reshape(-1), 1.0 / math.log1p(-share), seed
    kept = np.int64(min(log_uniform(state) * scale, 1e18))
    for i in range(len(flat)):
        count = np.int64(flat[i])
        if count <= kept:
            kept -= count
            continue
        left, lost = count, 0
        while left > kept:
            left -= kept + 1
            lost += 1
            state += _GOLDEN
            kept = np.int64(min(log_uniform(state) * scale, 1e18))
        kept -= left
        flat[i] = count - lost


def add_dark(counts: Counts, frames: I64, rate: float, seed: np.uint64) -> None:
    """Add a Poisson number of spikes with mean `rate` (over 0) for each spike frame of a bin, as far as they fit it.

    Drawn are the times from one to the next, all pixels' times put in a row.

    Args:
        counts: (T, K, P).
        frames: (T, K), spike frames of each bin.
    """
    state, scale = seed, -1.0 / rate
    time = log_uniform(state) * scale
    for t in range(counts.shape[0]):
        for k in range(counts.shape[1]):
            plane, most = counts[t, k], frames[t, k]
            end = float(len(plane) * most)
            while time < end:
                i = min(np.int64(time / most), len(plane) - 1)
                if plane[i] < most:
                    plane[i] += 1
                state += _GOLDEN
                time += log_uniform(state) * scale
            time -= end


def thin(counts: npt.NDArray[Any], first: I64, shape: I64, limit: np.uint64, seed: np.uint64) -> None:
    """Keep each spike with a probability of `limit` / 2**64, wherever the window with it begins.

    The j-th spike of a place has a random number of its own, which depends on the place in the whole and on j only.

    Args:
        counts: (n, k, h, w), a window of a larger whole.
        first: (4,), where the window begins.
        shape: (4,), of the whole.
    """
    for n in range(counts.shape[0]):
        for k in range(counts.shape[1]):
            for y in range(counts.shape[2]):
                row = ((first[0] + n) * shape[1] + first[1] + k) * shape[2] + first[2] + y
                for x in range(counts.shape[3]):
                    place = np.uint64(row * shape[3] + first[3] + x) << np.uint64(16)
                    kept = 0
                    for j in range(counts[n, k, y, x]):
                        kept += mixed(seed + _GOLDEN * (place + np.uint64(j))) < limit
                    counts[n, k, y, x] = kept


@compiled(types.void(types.int32[:, :, ::1], types.int64[::1], types.int64[::1], types.int64, types.uint64))
def draw_phases(
    phases: npt.NDArray[np.int32], first: I64, shape: I64, threshold: int, seed: np.uint64
) -> None:
    """Fill `phases` (n, h, w) with numbers below `threshold`, each of which depends on its place in the whole only.

    Args:
        first: (3,), where the window begins.
        shape: (3,), of the whole.
    """
    for n in range(phases.shape[0]):
        for y in range(phases.shape[1]):
            row = (first[0] + n) * shape[1] + first[1] + y
            for x in range(phases.shape[2]):
                bits = mixed(seed + _GOLDEN * np.uint64(row * shape[2] + first[2] + x))
                phases[n, y, x] = ((bits >> np.uint64(32)) * np.uint64(threshold)) >> np.uint64(32)


_PLANES = np.s_[:, :, ::1]
_WINDOW = np.s_[:, :, :, ::1]


def _for_both(parameters: Any, function: Any, layout: Any = _PLANES) -> dict[str, Any]:
    """The function compiled for counts of 8 and of 16 bits, by the name of their type."""
    kinds = {"uint8": types.uint8, "uint16": types.uint16}
    return {name: compiled(types.void(kind[layout], *parameters))(function) for name, kind in kinds.items()}


REFIRE = _for_both((types.int64[:, ::1], types.int32[:, ::1], types.int32[::1], types.int64), refire)
LOSE = _for_both((types.float64, types.uint64), lose)
ADD_DARK = _for_both((types.int64[:, ::1], types.float64, types.uint64), add_dark)
THIN = _for_both((types.int64[::1], types.int64[::1], types.uint64, types.uint64), thin, _WINDOW)
