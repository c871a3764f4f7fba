"""Functions compiled by numba: once per machine, then loaded from its cache, which need not be there."""

import logging
from collections.abc import Callable
from typing import Any

import numba

log = logging.getLogger(__name__)


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function now, for one signature and no other, to run without the interpreter lock.

    The compiled code is kept beside the source, else in the user's cache folder or NUMBA_CACHE_DIR, and is good as
    long as the function's own file does not change: what it calls belongs into that file. Where it cannot be kept,
    or what was kept is damaged (a full disk, no folder to write to, a power cut), it is compiled again.
    """

    def compile_now(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            found = numba.njit(nogil=True, cache=True)(function)
            found.compile(signature)
        except Exception as error:  # numba's cache raises whatever the system or pickle does
            log.debug("%s: compiled without numba's cache: %s", function.__qualname__, error)
            found = numba.njit(nogil=True)(function)
            found.compile(signature)
        found.disable_compile()
        return found

    return compile_now
