"""Compression, checksums and compiled kernels: whether they work, and at what speed."""

import time
from collections.abc import Iterator
from typing import Any

from pipeline.checkup.finding import Finding, note, ok, problem

_CHECKSUM = 0xE3069283
"""CRC-32C of the nine digits 1 to 9, as RFC 3720 and others give it."""
_BYTES = 1 << 23
_SLOW_GB_PER_S = 1.0


def check_codecs() -> Iterator[Finding]:
    """What `--codec` offers: packed and unpacked, bytes come back."""
    import numpy as np
    from numcodecs import Blosc

    counts = np.random.default_rng(0).poisson(1.5, 1 << 18).astype(np.uint8).tobytes()
    ratios = []
    for name in ("lz4", "zstd"):
        codec = Blosc(cname=name, clevel=5, shuffle=Blosc.BITSHUFFLE)
        packed = codec.encode(counts)
        if bytes(codec.decode(packed)) != counts:
            yield problem("codecs", f"blosc {name} does not give back what it was given", _again("numcodecs"))
            return
        ratios.append(f"{name} {len(counts) / len(packed):.1f}x")
    yield ok("codecs", f"blosc round trips: {', '.join(ratios)}")


def check_checksums(module: Any = None) -> Iterator[Finding]:
    """CRC-32C, which guards every chunk and is computed whenever one is read first.

    Args:
        module: google_crc32c.
    """
    if module is None:
        import google_crc32c as module
    if module.value(b"123456789") != _CHECKSUM:
        yield problem("crc32c", "gives wrong checksums", _again("google-crc32c"))
        return
    data = bytes(_BYTES)
    begun = time.perf_counter()
    module.value(data)
    rate = _BYTES / (time.perf_counter() - begun) / 1e9
    found = f"implementation {module.implementation!r}, {rate:.1f} GB/s"
    if module.implementation != "c":
        yield problem("crc32c", f"{found}: in Python, hundreds of times slower", _again("google-crc32c"))
    elif rate < _SLOW_GB_PER_S:
        yield note("crc32c", f"{found}: without help of the processor, or the machine is busy")
    else:
        yield ok("crc32c", found)


def check_kernels() -> Iterator[Finding]:
    """numba: whether it compiles, and can keep what it compiled."""
    import numba

    begun = time.perf_counter()
    try:
        added = numba.njit("int64(int64, int64)", cache=True)(_add)
    except (RuntimeError, OSError) as error:  # no folder to keep it in
        fix = "export NUMBA_CACHE_DIR=/a/folder/that/can/be/written"
        yield note("numba", f"compiles anew at every start: {str(error).splitlines()[0]}", fix)
        return
    seconds = time.perf_counter() - begun
    if added(2, 3) != 5:
        yield problem("numba", "computes wrongly", _again("numba"))
    else:
        yield ok("numba", f"compiles, and keeps what it compiled ({seconds:.2f} s)")


def _add(a: int, b: int) -> int:
    return a + b


def _again(package: str) -> str:
    return f"pip install --force-reinstall --no-cache-dir {package}"
