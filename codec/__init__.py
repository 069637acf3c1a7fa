"""codec: speech and image compression with neural networks.

    import codec

    codec.models()                                   # ['image-fsp', 'speech-fsp', ...]
    data = codec.compress(Path("in.wav").read_bytes(), codebook_size=1024)
    wav = codec.decompress(data)
    codec.info(data)                                 # {'format': '1.1', 'medium': 'speech', ...}
    data = codec.compress(Path("in.wav").read_bytes(), codebook_size=16384, layers=True)
    small = codec.truncate(data, 256)                # the same file, smaller, without decoding
    tokens = codec.read_tokens(data)                 # (A, G, *S) integers; write_tokens goes back
    model = codec.load("speech-fsp")                 # nets on tensors: model.codec.encode(x, 1024)

Everything heavy is imported on first use, so that commands that need no torch start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.errors import BitstreamError, CodecError, MediaError, ModelError
from codec.streams import quiet_imports

if TYPE_CHECKING:
    from codec.api import compress, decompress, load, models
    from codec.description import info
    from codec.model import Codec
    from codec.tokens import read_tokens, write_tokens
    from codec.truncation import truncate

__version__ = "0.3.0.dev0"

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "MediaError",
    "ModelError",
    "__version__",
    "compress",
    "decompress",
    "info",
    "load",
    "models",
    "read_tokens",
    "truncate",
    "write_tokens",
]

quiet_imports(__name__)
_HOMES = {
    "Codec": "codec.model",
    "info": "codec.description",
    "truncate": "codec.truncation",
    "read_tokens": "codec.tokens",
    "write_tokens": "codec.tokens",
} | dict.fromkeys(("compress", "decompress", "load", "models"), "codec.api")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
