"""A file that is looked at here and there: what a survey of its structure reads."""

from __future__ import annotations

import os
from typing import BinaryIO

AT_ONCE = 1 << 20
# Kept before what is asked for: who looked a little ahead and goes back need not read again.
BEHIND = 1 << 16


class Window:
    """Bytes anywhere in a file that can seek, read through a buffer.

    Attributes:
        size: Of the file, bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._start, self._buffer = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the file."""
        if offset >= self.size:
            return b""
        size = min(size, self.size - offset)  # or the last bytes would be read again at each look
        at = offset - self._start
        if at < 0 or at + size > len(self._buffer):
            self._start = max(offset - BEHIND, 0)
            self._file.seek(self._start)
            at = offset - self._start
            self._buffer = self._file.read(at + max(size, AT_ONCE))
        return self._buffer[at : at + size]

    def find(self, pattern: bytes, offset: int) -> int:
        """The first place of a few bytes from `offset` on, or -1."""
        while len(self.read(offset, len(pattern))) == len(pattern):
            at = self._buffer.find(pattern, offset - self._start)
            if at >= 0:
                return self._start + at
            offset = self._start + len(self._buffer) - len(pattern) + 1
        return -1
