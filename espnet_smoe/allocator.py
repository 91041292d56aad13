"""Memory that is freed: kept for the next tensor, or given back to the system.

The C library (glibc) gives large blocks back to the system as soon as they are freed and asks for
new ones, page by page, at the next operation. Decoding on a CPU spends a good part of its time on
that: `benchmarks/decode.py --keep_freed_memory` tells how much. The recipe's stages 11 and 12 set
the same by ``GLIBC_TUNABLES``.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>
NEVER = 2**31 - 1  # bytes of free memory at which some goes back to the system
VARIABLES = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, from now on.

    Left alone where the user has settled the matter by an environment variable, and where the C
    library is not glibc. For programs; a library leaves its host's memory alone.

    Returns:
        Whether it was set.
    """
    if any(os.environ.get(name) for name in VARIABLES):
        return False
    libc = _glibc()
    if libc is None:
        return False
    set_up = [libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, NEVER)]
    return set_up == [1, 1]


def return_freed_memory() -> bool:
    """Give what was freed back to the system, once: what loading a model leaves in small pieces.

    Returns:
        Whether there was any; False where the C library is not glibc.
    """
    libc = _glibc()
    return libc is not None and libc.malloc_trim(0) == 1


def _glibc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None
