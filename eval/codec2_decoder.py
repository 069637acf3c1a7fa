"""Codec2's decoder, in a fresh process for each file.

It fills spectra with random phases, from a generator that belongs to the process and cannot be set.
So a file would decode to other samples after other files, and its figures would depend on them. One
small process is kept, which has decoded nothing and forks once for each file.

    decode(mode, frames) ─HEAD, frames─> serve ─fork─> int16 samples behind their size ─> decode
"""

from __future__ import annotations

import atexit
import os
import struct
import subprocess
import sys
import threading
from functools import cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<II")  # mode in bit/s, bytes of the frames
SIZE = struct.Struct("<I")  # bytes of the samples; 0 where the decoder failed
_turn = threading.Lock()  # one file at a time


def decode(mode: int, frames: bytes) -> NDArray[np.int16]:
    """Decodes whole frames, one after the other.

    Args:
        mode: Nominal bit/s of Codec2's mode.
        frames: At least one frame of so many whole bytes as the mode has.

    Returns:
        (n,) samples at 8 kHz, which depend on the arguments alone.

    Raises:
        RuntimeError: The decoder failed.
    """
    with _turn:
        jobs, results = _server()
        jobs.write(HEAD.pack(mode, len(frames)) + frames)
        jobs.flush()
        head = results.read(SIZE.size)
        size = SIZE.unpack(head)[0] if len(head) == SIZE.size else 0
        samples = results.read(size)
    if not size or len(samples) < size:
        raise RuntimeError(f"Codec2 could not decode {len(frames)} bytes of mode {mode}")
    return np.frombuffer(samples, np.int16)


@cache
def _server() -> tuple[IO[bytes], IO[bytes]]:
    """Starts the process, which ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, whose end is seen
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def end() -> None:
        with server:  # closes the pipes, at which it ends, and waits
            pass

    atexit.register(end)
    return server.stdin, server.stdout


def serve(jobs: IO[bytes], results: IO[bytes]) -> None:
    """Answers jobs until there are no more."""
    import pycodec2

    while len(head := jobs.read(HEAD.size)) == HEAD.size:
        mode, size = HEAD.unpack(head)
        frames = jobs.read(size)
        child = os.fork()
        if not child:
            code = 1
            try:
                samples = _samples(pycodec2.Codec2(mode), frames)
                results.write(SIZE.pack(len(samples)) + samples)
                results.flush()
                code = 0
            finally:
                os._exit(code)  # without a traceback: the waiting process tells
        if os.waitpid(child, 0)[1]:
            results.write(SIZE.pack(0))
            results.flush()


def _samples(coder: Any, frames: bytes) -> bytes:
    size = -(-coder.bits_per_frame() // 8)
    parts = [coder.decode(frames[at : at + size]) for at in range(0, len(frames), size)]
    return np.concatenate(parts).tobytes()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
