"""OpenBLAS for MLX on Linux: the wheel's reference BLAS multiplies about thirty times slower.

To be called before `mlx.core` is imported for the first time: symbols that are there already win.
"""

import ctypes
import ctypes.util
import sys


def load_openblas() -> str | None:
    """The library that was loaded; None where the system has none, or needs none (macOS)."""
    if sys.platform != "linux":
        return None
    name = ctypes.util.find_library("openblas")
    if name is None:
        return None
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None
    return name
