"""Whatever turns a signal into bytes and back, behind one protocol.

These are our models, classic codecs, and neural neighbours.

    signal ─compress─> bytes of a whole file ─decompress─> signal of the same shape

A neighbour is any network that gives integer tokens: transformers' EnCodec, DAC and Mimi from a
folder of weights, or what a function of the user's own returns (a VQGAN, say). Their files are a
header of 16 bytes and tokens of fixed width, which is what such models are quoted at.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from codec import cards, coding
from codec.bottlenecks.parts import SoftCodebooks
from codec.container import Reader, scan
from codec.errors import BitstreamError, MediaError, ModelError
from codec.files import files_below
from codec.media import resample
from codec.medium import SAMPLE_RATE
from eval.baselines import Baseline
from eval.signals import SIGNALS, Signal

# Magic, length of the signal, streams, tokens of a stream.
NEIGHBOUR_HEADER = struct.Struct("<4sIII")
NEIGHBOUR_MAGIC = b"NBR1"


class System(Protocol):
    """A codec at one setting.

    Attributes:
        name: What tables call it.
        setting: What tables call its setting.
        medium: "image" or "speech".
        num_codes: The number of codes of its tokens; 0 for a codec without tokens.
    """

    name: str
    setting: str
    medium: str
    num_codes: int

    def compress(self, signal: Signal) -> bytes:
        """Turns (H, W, 3) uint8, or (n, 1) float32 at 16 kHz, into the bytes of a file."""

    def decompress(self, data: bytes, length: int) -> Signal:
        """Turns the bytes of a file into a signal of the shape that went in.

        `length` is the signal's first axis, for files that do not hold it.
        """

    def payload(self, data: bytes) -> int:
        """Returns the number of bytes of a file without its container."""

    def indices(self, data: bytes) -> NDArray[np.int64] | None:
        """Returns the (G, n) tokens that a file holds; None where a codec has none."""


class ModelSystem:
    """One of our models at one codebook size; `effort` and `search` as in `codec.compress`."""

    def __init__(
        self,
        model: coding.Model,
        codebook_size: int,
        name: str | None = None,
        effort: int = 0,
        search: int = 0,
    ) -> None:
        self.name = name or model.card.name
        self.setting = str(codebook_size)
        self.medium = model.card.medium
        self.model, self._size, self._care = model, codebook_size, (effort, search)
        self.num_codes = model.codec.bottleneck.num_codes(codebook_size)

    def compress(self, signal: Signal) -> bytes:
        file = io.BytesIO()
        SIGNALS[self.medium].compress(signal, file, self.model, self._size, *self._care)
        return file.getvalue()

    def decompress(self, data: bytes, length: int) -> Signal:  # noqa: ARG002  our files hold their lengths
        return SIGNALS[self.medium].decompress(Reader(io.BytesIO(data)), self.model)

    def payload(self, data: bytes) -> int:
        return scan(io.BytesIO(data)).payload_bytes

    def indices(self, data: bytes) -> NDArray[np.int64] | None:
        return np.asarray(coding.read_indices(data, self.model)[1][0], np.int64)

    def soft_perplexity(self, signal: Signal) -> float | None:
        """Returns exp H of the mean posterior over a signal's tokens; None without posteriors."""
        codec = self.model.codec
        if not isinstance(codec.bottleneck, SoftCodebooks):
            return None
        x = SIGNALS[self.medium].to_nets(signal).to(self.model.device)
        with torch.inference_mode():
            try:
                codec.bottleneck.train()  # posteriors are a matter of training; no state changes
                return float(codec(x, self._size).bottleneck.stats["perplexity"])
            finally:
                codec.bottleneck.eval()


class BaselineSystem:
    """A classic codec at one setting."""

    num_codes = 0

    def __init__(self, baseline: Baseline, setting: int) -> None:
        self.name, self.setting, self.medium = baseline.name, str(setting), baseline.medium
        self.baseline, self._setting = baseline, setting

    def compress(self, signal: Signal) -> bytes:
        return self.baseline.encode(signal, self._setting)

    def decompress(self, data: bytes, length: int) -> Signal:
        return self.baseline.decode(data, length)

    def payload(self, data: bytes) -> int:
        return self.baseline.payload(data)

    def indices(self, data: bytes) -> NDArray[np.int64] | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A network that somebody else trained, as two functions.

    Attributes:
        name: What tables call it.
        setting: What tables call its bandwidth or codebook.
        medium: "image" or "speech".
        num_codes: The number of codes K of each stream.
        encode: Turns a signal into (G, n) integers in [0, K).
        decode: Turns (G, n) integers and the signal's length into a signal.
    """

    name: str
    setting: str
    medium: str
    num_codes: int
    encode: Callable[[Signal], NDArray[Any]]
    decode: Callable[[NDArray[np.int64], int], Signal]


class NeighbourSystem:
    """A neighbour with real files: 16 bytes of header, then tokens of ceil(log2 K) bits."""

    def __init__(self, neighbour: Neighbour) -> None:
        self.name, self.setting, self.medium = neighbour.name, neighbour.setting, neighbour.medium
        self.num_codes, self._neighbour = neighbour.num_codes, neighbour
        self._bits = max(math.ceil(math.log2(neighbour.num_codes)), 1)

    def compress(self, signal: Signal) -> bytes:
        tokens = np.asarray(self._neighbour.encode(signal))
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ModelError(
                f"{self.name}: encode gave {tokens.dtype} {tokens.shape}; want integers (G, n)"
            )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.num_codes:
            raise ModelError(f"{self.name}: a token lies outside 0..{self.num_codes - 1}")
        bits = (tokens.reshape(-1, 1) >> np.arange(self._bits - 1, -1, -1)) & 1
        return (
            NEIGHBOUR_HEADER.pack(NEIGHBOUR_MAGIC, len(signal), *tokens.shape)
            + np.packbits(bits).tobytes()
        )

    def decompress(self, data: bytes, length: int) -> Signal:
        signal = np.asarray(self._neighbour.decode(self._tokens(data), length))
        return SIGNALS[self.medium].fitted(signal, length)

    def payload(self, data: bytes) -> int:
        return len(data) - NEIGHBOUR_HEADER.size

    def indices(self, data: bytes) -> NDArray[np.int64] | None:
        return self._tokens(data)

    def _tokens(self, data: bytes) -> NDArray[np.int64]:
        if len(data) < NEIGHBOUR_HEADER.size or data[:4] != NEIGHBOUR_MAGIC:
            raise BitstreamError(f"not a file of {self.name}")
        _, _, streams, count = NEIGHBOUR_HEADER.unpack_from(data)
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=NEIGHBOUR_HEADER.size))
        if len(bits) < streams * count * self._bits:
            raise BitstreamError(f"file of {self.name} is cut short")
        words = (
            bits[: streams * count * self._bits]
            .reshape(streams, count, self._bits)
            .astype(np.int64)
        )
        return np.asarray(words @ (1 << np.arange(self._bits - 1, -1, -1)), np.int64)


def load_neighbour(spec: str) -> Neighbour:
    """Loads a neighbour as the command line names it.

    Args:
        spec: "encodec:FOLDER[@kbit/s]", "dac:FOLDER[@streams]" or "mimi:FOLDER[@streams]", with
            transformers' weights in the folder; or "MODULE:FUNCTION", a function that returns a
            Neighbour.

    Raises:
        ModelError: This is none of these, or it cannot be loaded.
    """
    kind, _, rest = spec.partition(":")
    try:
        if kind in TRANSFORMERS:
            folder, _, setting = rest.partition("@")
            if not Path(folder).is_dir():
                raise ModelError(f"{folder} is no folder of weights; get them from the hub first")
            return TRANSFORMERS[kind](folder, setting)
        neighbour = getattr(importlib.import_module(kind), rest)()
    except ModuleNotFoundError as error:
        raise ModelError(f"neighbour {spec}: {error.name} is not installed") from None
    except (AttributeError, OSError, ValueError, TypeError) as error:
        raise ModelError(f"neighbour {spec}: {' '.join(str(error).split())}") from None
    if not isinstance(neighbour, Neighbour):
        raise ModelError(
            f"neighbour {spec}: gave a {type(neighbour).__name__}, not an eval.systems.Neighbour"
        )
    return neighbour


def neighbour_hash(spec: str) -> str:
    """Returns a hash of what a neighbour is made of, which is not loaded.

    Args:
        spec: As in `load_neighbour`: of a folder it is all its files, of a function the file that
            its module lies in. What that imports, or reads, is not seen.
    """
    kind, _, rest = spec.partition(":")
    found = hashlib.sha256()
    for path in _files_of(kind, Path(rest.partition("@")[0])):
        found.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def _files_of(kind: str, folder: Path) -> list[Path]:
    """Returns the files of a neighbour; none where there are none, which loading it will tell."""
    if kind in TRANSFORMERS:
        return files_below(folder) if folder.is_dir() else []
    try:
        module = importlib.util.find_spec(kind)
    except (ImportError, ValueError):
        return []
    return [Path(module.origin)] if module and module.has_location and module.origin else []


def _tensor(signal: Signal, rate: int) -> torch.Tensor:
    return torch.tensor(resample(np.asarray(signal, np.float32), SAMPLE_RATE, rate)).T[None]


def _samples(values: torch.Tensor, rate: int) -> Signal:
    return resample(values.reshape(-1, 1).float().numpy(), rate, SAMPLE_RATE)


def _encodec(folder: str, setting: str) -> Neighbour:
    from transformers import EncodecModel

    model = EncodecModel.from_pretrained(folder, local_files_only=True).eval()
    rate = model.config.sampling_rate
    bandwidth = float(setting or model.config.target_bandwidths[0])
    if model.config.chunk_length_s is not None or model.config.audio_channels != 1:
        raise ModelError(f"{folder}: wants stereo or cuts chunks; use the 24 kHz model")

    @torch.inference_mode()
    def encode(signal: Signal) -> Signal:
        return np.asarray(
            model.encode(_tensor(signal, rate), bandwidth=bandwidth).audio_codes[0, 0]
        )

    @torch.inference_mode()
    def decode(tokens: Signal, length: int) -> Signal:  # noqa: ARG001
        return _samples(
            model.decode(torch.from_numpy(tokens)[None, None], [None]).audio_values, rate
        )

    return Neighbour(
        "encodec", f"{bandwidth:g} kbit/s", "speech", model.config.codebook_size, encode, decode
    )


def _dac(folder: str, setting: str) -> Neighbour:
    from transformers import DacModel

    model = DacModel.from_pretrained(folder, local_files_only=True).eval()
    return _of_streams("dac", model, int(setting or model.config.n_codebooks), "n_quantizers")


def _mimi(folder: str, setting: str) -> Neighbour:
    from transformers import MimiModel

    model = MimiModel.from_pretrained(folder, local_files_only=True).eval()
    return _of_streams("mimi", model, int(setting or model.config.num_quantizers), "num_quantizers")


def _of_streams(name: str, model: Any, streams: int, argument: str) -> Neighbour:
    """A network of transformers, asked for a number of streams.

    The argument that asks for it has a name of its own in each network.
    """
    rate = model.config.sampling_rate

    @torch.inference_mode()
    def encode(signal: Signal) -> Signal:
        return np.asarray(model.encode(_tensor(signal, rate), **{argument: streams}).audio_codes[0])

    @torch.inference_mode()
    def decode(tokens: Signal, length: int) -> Signal:  # noqa: ARG001
        return _samples(model.decode(audio_codes=torch.from_numpy(tokens)[None]).audio_values, rate)

    return Neighbour(
        name, f"{streams} streams", "speech", model.config.codebook_size, encode, decode
    )


TRANSFORMERS = {"encodec": _encodec, "dac": _dac, "mimi": _mimi}


def load_models(
    paths: list[tuple[str, str, tuple[int, ...]]], effort: int = 0, search: int = 0
) -> list[ModelSystem]:
    """Loads models once each, and returns a system for each of their codebook sizes.

    Args:
        paths: For each model its name, the path of its card, and the codebook sizes.
        effort: Of all of them, as in `codec.compress`.
        search: Likewise.
    """
    systems = []
    for name, path, sizes in paths:
        model = coding.load(cards.find(path))
        systems += [ModelSystem(model, size, name, effort, search) for size in sizes]
    return systems


def check_shape(system: System, signal: Signal, decoded: Signal) -> Signal:
    """Returns what a system gave back.

    Raises:
        MediaError: It is of another shape than the signal, and cannot be scored.
    """
    if decoded.shape != signal.shape:
        raise MediaError(f"{system.name} gave back {decoded.shape} for {signal.shape}")
    return decoded
