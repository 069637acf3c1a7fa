"""Files and arrays: the only place that touches audio and picture files.

Audio is (T, C) float32 in [-1, 1]; a picture is (H, W, 3) uint8 in sRGB. The kind of a file is told
from its content, never from its name. What is lost on the way in (an alpha channel, 16-bit depth,
the end of a recording) is said through the "codec" logger.
"""

from codec.media.audio_writer import MAX_RIFF_BYTES, AudioWriter
from codec.media.kinds import HEAD_BYTES, IMAGE_FORMATS, Pixels, Samples, detect
from codec.media.picture_writer import ImageWriter, save_image
from codec.media.pictures import MAX_PIXELS, Picture, load_image
from codec.media.recordings import AudioReader, Recording, load_audio, streamed
from codec.media.resampling import at_rate, resample
from codec.media.wav import WavStream

__all__ = [
    "HEAD_BYTES",
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "MAX_RIFF_BYTES",
    "AudioReader",
    "AudioWriter",
    "ImageWriter",
    "Picture",
    "Pixels",
    "Recording",
    "Samples",
    "WavStream",
    "at_rate",
    "detect",
    "load_audio",
    "load_image",
    "resample",
    "save_image",
    "streamed",
]
