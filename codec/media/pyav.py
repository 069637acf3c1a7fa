"""Recordings that libsndfile does not know (m4a, webm, aac, amr ...).

They are read through PyAV, that is FFmpeg, where it is there.

It is held to containers of sound and film: FFmpeg would also follow a playlist to other files and
into the network.

    file ──_Source── packets of all streams ──decoder── frames of the first sound ──> blocks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from codec.errors import MediaError
from codec.media.kinds import AUDIO_NAMES, IMAGE_FORMATS, Samples
from codec.media.survey import DAMAGED, SEVERAL
from codec.medium import MAX_RATE_HZ, MIN_RATE_HZ

# Their headers say how long they are. So do those of AVI, but in frames that need not be there.
TIMED = "mov,matroska,flv,asf,wv,tta,ape,wav,caf,aiff"
CONTAINERS = (
    f"{TIMED},avi,aac,adts,loas,ac3,eac3,dts,amr,amrnb,amrwb,mpegts,mpeg,mp3,ogg,flac,au,w64,dsf,"
    "iff,tak,mpc,mpc8,oma,voc"
)
# Between the length a header says and that of what was decoded: rounding, a last block that counts
# as a whole one.
TOLERANCE_S = 0.2
FORMATS = f"known are {AUDIO_NAMES}; of pictures {', '.join(IMAGE_FORMATS)}"
FILM = "the film in this file is left out: only its sound is coded"
GAPS = "the recording has gaps: what comes behind one follows at once"


class AvReader:
    """The first sound of a file that can be decoded, block by block.

    Where its sample rate or the number of its channels changes midway, `blocks` ends, and
    `following` goes on to what comes behind.

    Args:
        file: A binary file that can seek.
        cut: It is known to end too early.
        reason: Why libsndfile would not read it.
        say: Tells what is left out.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        cut: It was found to end too early; known once all blocks were taken.

    Raises:
        MediaError: PyAV is not installed, or does not read it either.
    """

    def __init__(self, file: BinaryIO, cut: bool, reason: str, say: Callable[[str], None]) -> None:
        try:
            import av
        except ImportError:
            raise MediaError(
                f"not a recording or picture in a known format ({reason}; {FORMATS}); "
                "m4a, webm, aac, amr and more are "
                "read where PyAV is installed (pip install av); or convert it: ffmpeg -i IN OUT.wav"
            ) from None
        self._av = av
        self._faults = (av.error.FFmpegError, ValueError, IndexError)
        self.cut, self._say = cut, say
        self._source = _Source(file)
        try:
            self._container: Any = av.open(
                self._source,
                options={"format_whitelist": CONTAINERS},
                metadata_errors="replace",  # titles are in any encoding
            )
            self._stream = self._choose()
            self.sample_rate, self.channels = (
                int(self._stream.sample_rate or 0),
                int(self._stream.channels or 0),
            )
            if not self.channels:
                raise ValueError("it has no channels")
        except self._faults as error:
            self._source.check()
            if cut:
                raise MediaError(
                    "damaged recording: it is cut short, "
                    f"and what is missing tells how to read it ({_text(error)})"
                ) from None
            raise MediaError(
                f"not a recording or picture in a known format, or damaged ({reason}; "
                f"{_text(error)}); {FORMATS}"
            ) from None
        self._decoded = self._decode()
        self._ahead = next(self._decoded, None)

    def _choose(self) -> Any:
        """The first sound whose coding is known; says what else there is."""
        streams = self._container.streams
        if not streams.audio:
            raise MediaError(f"there is no sound in this file ({self._container.format.long_name})")
        known = [stream for stream in streams.audio if stream.codec_context is not None]
        if not known:
            raise ValueError("its coding is not known")
        if len(streams.audio) > 1:
            self._say(SEVERAL)
        cover = self._av.stream.Disposition.attached_pic
        if any(not stream.disposition & cover for stream in streams.video):
            self._say(FILM)
        return known[0]

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks, n > 0; what cannot be decoded is left out."""
        while self._ahead is not None and _kind(self._ahead) == (self.sample_rate, self.channels):
            yield self._ahead[1]
            self._ahead = next(self._decoded, None)

    def following(self) -> bool:
        """Whether something of another kind follows; then `blocks` goes on with it."""
        if self._ahead is None:
            return False
        self.sample_rate, self.channels = _kind(self._ahead)
        return True

    def _decode(self) -> Iterator[tuple[int, Samples]]:
        """Sample rates and blocks; at the end, says what is missing."""
        bad, bad_at_end, clock = 0, 0, _Clock(self._stream.index)
        converters: dict[tuple[object, ...], Any] = {}
        packets = self._container.demux()  # of all streams: a film may end later than its sound
        while True:
            packet = None
            blocks: list[tuple[int, Samples]] = []
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if not clock.see(packet):
                    continue
                for frame in packet.decode():
                    clock.see_frame(frame)
                    blocks += self._converted(frame, converters)
                if packet.size:
                    bad_at_end = int(packet.is_corrupt)
            except self._faults:
                bad, bad_at_end = bad + 1, bad_at_end + 1
                if packet is None:  # no more can be read
                    break
            yield from blocks
        self._source.check()
        self.cut |= bad_at_end > 0 or self._is_short(clock)
        if bad > bad_at_end or (bad and not self.cut):
            self._say(DAMAGED)
        elif clock.has_gaps and not bad:
            self._say(GAPS)
        self._container.close()

    def _converted(
        self, frame: Any, converters: dict[tuple[object, ...], Any]
    ) -> Iterator[tuple[int, Samples]]:
        """The samples of a frame as floats. Raises ValueError for a rate that no recording has."""
        rate, channels = int(frame.sample_rate), len(frame.layout.channels)
        if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ or not channels:
            raise ValueError(f"{rate} Hz, channels: {channels}")
        kind = frame.format.name, frame.layout.name, rate
        if kind not in converters:
            converters[kind] = self._av.AudioResampler("flt", frame.layout, rate)
        for part in converters[kind].resample(frame):
            block = part.to_ndarray().reshape(-1, channels)
            if len(block):
                yield rate, np.ascontiguousarray(block, np.float32)

    def _is_short(self, clock: _Clock) -> bool:
        """Whether the file ends before its header says so."""
        names = self._container.format.name.split(",")
        if not set(names) & set(TIMED.split(",")) or not self._container.duration:
            return False
        missing_s = self._container.duration / self._av.time_base - clock.end_s
        return bool(missing_s > TOLERANCE_S)


class _Clock:
    """Where a file is, by the times of its packets.

    Args:
        index: Of the stream that is read.

    Attributes:
        end_s: Of the latest packet of any stream, or of what it held, seconds.
        has_gaps: A frame of the stream began later than the one before it ended.
    """

    def __init__(self, index: int) -> None:
        self.end_s, self.has_gaps = 0.0, False
        self._index = index
        self._units: dict[int, float] = {}  # seconds, by stream
        self._next_s: float | None = None

    def see(self, packet: Any) -> bool:
        """Takes the time of a packet; returns whether it is of the stream."""
        index = packet.stream.index
        if packet.size and packet.pts is not None:
            unit = self._units.get(index)
            if unit is None:
                unit = self._units[index] = float(packet.time_base or 0)
            self.end_s = max(self.end_s, (packet.pts + (packet.duration or 0)) * unit)
        return bool(index == self._index)

    def see_frame(self, frame: Any) -> None:
        """Takes the time of what a packet of the stream held."""
        unit = self._units.get(self._index, 0.0)
        if frame.pts is None or not unit or not frame.sample_rate:
            return
        start_s = frame.pts * unit
        self.has_gaps |= self._next_s is not None and start_s > self._next_s + TOLERANCE_S
        self._next_s = start_s + frame.samples / frame.sample_rate
        self.end_s = max(self.end_s, self._next_s)  # its packet may not tell how long it is


class _Source:
    """A file as FFmpeg reads it.

    What fails is told by return values: PyAV would raise an exception later, at any other call, and
    print one that comes in between.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None
        file.seek(0)

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # a place that a damaged file names
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raises the OSError with which reading failed, if it did."""
        if self._error is not None:
            raise self._error


def _kind(item: tuple[int, Samples]) -> tuple[int, int]:
    return item[0], item[1].shape[1]


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
