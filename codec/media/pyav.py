"""Recordings that libsndfile does not know (m4a, webm, aac, amr ...).

They are read through PyAV, that is FFmpeg, where it is there.

It is held to containers of sound and film: FFmpeg would also follow a playlist to other files and
into the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from codec.errors import MediaError
from codec.media.kinds import AUDIO_NAMES, IMAGE_FORMATS, Samples
from codec.media.survey import DAMAGED

log = logging.getLogger("codec")

TIMED = "mov,matroska,flv,asf,wv,tta,ape,avi,wav,caf,aiff"  # their headers say how long they are
CONTAINERS = (
    f"{TIMED},aac,adts,loas,ac3,eac3,dts,amr,amrnb,amrwb,mpegts,mpeg,mp3,ogg,flac,au,w64,dsf,iff,"
    "tak,mpc,mpc8,oma"
)
# Between the length a header says and that of what was decoded: padding, rounding.
TOLERANCE_S = 0.1
FORMATS = f"{AUDIO_NAMES}; pictures: {', '.join(IMAGE_FORMATS)}"


class AvReader:
    """The first sound of a file, block by block.

    Args:
        file: A binary file that can seek.
        cut: It is known to end too early.
        reason: Why libsndfile would not read it.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        cut: It was found to end too early; known once all blocks were taken.

    Raises:
        MediaError: PyAV is not installed, or does not read it either.
    """

    def __init__(self, file: BinaryIO, cut: bool, reason: str) -> None:
        try:
            import av
        except ImportError:
            raise MediaError(
                f"not a recording or picture in a known format ({reason}; {FORMATS}); "
                "m4a, webm, aac, amr and more are "
                "read where PyAV is installed (pip install av); or convert it: ffmpeg -i IN OUT.wav"
            ) from None
        self._av = av
        self.cut = cut
        file.seek(0)
        try:
            self._container: Any = av.open(file, options={"format_whitelist": CONTAINERS})
            streams = self._container.streams.audio
            if not streams:
                raise MediaError(
                    f"there is no sound in this file ({self._container.format.long_name})"
                )
            self._stream: Any = streams[0]
            if self._stream.codec_context is None:
                raise ValueError("its coding is not known")
            self.sample_rate, self.channels = (
                int(self._stream.sample_rate or 0),
                int(self._stream.channels or 0),
            )
            if not self.channels:
                raise ValueError("it has no channels")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if cut:
                raise MediaError(
                    "damaged recording: it is cut short, "
                    f"and what is missing tells how to read it ({_text(error)})"
                ) from None
            raise MediaError(
                f"not a recording or picture in a known format, or damaged ({reason}; "
                f"{_text(error)}); {FORMATS}"
            ) from None
        if len(streams) > 1:
            log.warning("several recordings in one file: only the first is coded")

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks, n > 0; what cannot be decoded is left out."""
        count, bad, last_is_bad = 0, 0, False
        resamplers: dict[tuple[object, ...], Any] = {}  # by what comes in, which may change midway
        layout = self._stream.layout.name
        packets = self._container.demux(self._stream)
        while True:
            packet, frames = None, []
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                for frame in packet.decode():
                    kind = frame.format.name, frame.layout.name, frame.sample_rate
                    if kind not in resamplers:
                        resamplers[kind] = self._av.AudioResampler(
                            format="flt", layout=layout, rate=self.sample_rate
                        )
                    frames += resamplers[kind].resample(frame)
                last_is_bad = packet.is_corrupt if packet.size else last_is_bad
            except (self._av.error.FFmpegError, OSError, ValueError):
                bad, last_is_bad = bad + 1, True
                if packet is None:  # no more can be read
                    break
            for frame in frames:
                block = frame.to_ndarray().reshape(-1, self.channels)
                count += len(block)
                if len(block):
                    yield np.ascontiguousarray(block, np.float32)
        self.cut |= last_is_bad or self._is_short(count)
        if bad and not self.cut:
            log.warning(DAMAGED)
        self._container.close()

    def _is_short(self, count: int) -> bool:
        names = self._container.format.name.split(",")
        if not set(names) & set(TIMED.split(",")) or not self._container.duration:
            return False
        seconds = self._container.duration / self._av.time_base
        if self._stream.duration:
            seconds = float(self._stream.duration * self._stream.time_base)
        return bool(count < (seconds - TOLERANCE_S) * self.sample_rate)


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
