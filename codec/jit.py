"""Functions that numba compiles.

They are kept as machine code beside their source, and run without Python's lock.
"""

# mypy: ignore-errors

import hashlib
import os
import pickle
from contextlib import suppress
from pathlib import Path

from codec.errors import CodecError

try:
    from numba import njit
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ValueError as error:  # an environment variable that numba cannot use
    given = ", ".join(
        f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_")
    )
    raise CodecError(
        f"numba does not start ({str(error).rstrip('.')}); change or unset {given}"
    ) from None

DIGEST_BYTES = 32


def machine_code(function):
    """Compiles at the first call.

    Later processes load it from beside the source or, where that is read-only, from the user's
    cache. Without either, or where the cache is damaged or the disk full, it is compiled for this
    run.
    """
    compiled = njit(function, nogil=True)
    with suppress(Exception):  # no place for a cache; or a numba that keeps it in another way
        compiled._cache = _Cache(function)
    return compiled


class _Cache(FunctionCache):
    """numba's cache, in which nothing that goes wrong is an error: it only saves time."""

    def __init__(self, function):
        super().__init__(function)
        kept = self._cache_file
        name = kept._index_name.removesuffix(".nbi")
        self._cache_file = _CheckedFile(kept._cache_path, name, kept._source_stamp)

    def load_overload(self, signature, target_context):
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # damaged bytes raise whatever they look like
            return None

    def save_overload(self, signature, data):
        try:
            super().save_overload(signature, data)
        except Exception:
            # An index that cannot be read is begun anew; no room, no right to write: no cache.
            with suppress(Exception):
                self.flush()
                super().save_overload(signature, data)


class _CheckedFile(IndexDataCacheFile):
    """Machine code with a checksum of it and its signature, since a flipped bit would run."""

    def load(self, key):
        name = self._load_index().get(key)
        if name is None:
            return None
        data = Path(self._data_path(name)).read_bytes()
        code, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        return pickle.loads(code) if digest == _digest(key, code) else None

    def save(self, key, data):
        self._key = key
        super().save(key, data)

    def _save_data(self, name, data):
        code = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(code + _digest(self._key, code))


def _digest(key, code):
    return hashlib.sha256(repr(key).encode() + code).digest()
