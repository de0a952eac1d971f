"""How this process uses memory: settings of the C library and of Python's search for garbage."""

from __future__ import annotations

import atexit
import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_GARBAGE = (100_000, 20, 100)  # new objects, rounds of the youngest, rounds of the next


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for as long as it lives.

    The buffers of one batch are those of the next. Given back to the system and asked for again, every page of them
    is cleared each time: a quarter of an epoch of VGGish. For worker processes; nothing where the C library is not
    glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def look_seldom_for_garbage() -> None:
    """Have this process search for unreachable objects seldom, and not at all when it ends.

    The half million objects of the libraries stay to the end. Going through them over and over takes a quarter of a
    short command's time, and once more at its end a second.
    """
    gc.set_threshold(*_GARBAGE)
    atexit.register(gc.freeze)
