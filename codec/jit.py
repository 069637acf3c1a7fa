"""Functions that numba compiles: kept as machine code beside their source, and run without Python's lock."""

# mypy: ignore-errors

from numba import njit


def machine_code(function):
    """Compiles at the first call; later processes load it from beside the source or, where that is read-only, from the
    user's cache. Without either it is compiled for this run.
    """
    try:
        return njit(function, cache=True, nogil=True)
    except RuntimeError:
        return njit(function, nogil=True)
