"""Fixtures: real media where they lie, and tiny seeded models, so that tests need no trained
weights.
"""

from __future__ import annotations

import errno
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from codec import cards, coding
from codec.cards import identities
from codec.entropy import Prior, quantise_counts
from codec.model import Codec, CodecConfig, build
from codec.nets.image import ImageConfig
from codec.nets.speech import SpeechConfig
from train.digits import layout, refined_layout
from train.prior_net import SPEEDS, PriorNet, rounded
from train.priors import LARGE, OFFSETS, REFINED_OFFSETS

ROOT = Path(__file__).parent.parent
NETS = {
    "speech": SpeechConfig(encoder_dim=8, encoder_depth=1, decoder_dim=8, decoder_depth=1),
    "image": ImageConfig((8, 8), (1, 1), (8, 8, 8), (1, 1, 1)),
}

# Tiny nets are slower on two threads than on one, and on a loaded machine much slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real() -> Callable[[str, int], bytes]:
    """The bytes of the n-th file of a tar of real media; skips where there is none."""

    def read(name: str, number: int = 0) -> bytes:
        path = ROOT.parent / "shared/data" / name
        if not path.is_file():
            pytest.skip(f"real media are not here: {name}")
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.isfile()]
            file = tar.extractfile(members[number])
            assert file is not None
            return file.read()

    return read


def tiny_codec(medium: str, seed: int = 0) -> Codec:
    """Random nets whose latents spread over the codebook."""
    torch.manual_seed(seed)
    codec = build(CodecConfig(medium, NETS[medium], "fsp"))
    for module in codec.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    if isinstance(codec.decoder.head, torch.nn.Linear):
        torch.nn.init.constant_(codec.decoder.head.bias, -1.0)  # speech that is not loud
    return codec.eval()


def untrained_prior(codec: Codec, size: int, below: int | None = None) -> Prior | None:
    """What the training of a prior starts from: it learns within a chunk, from the neighbours'
    digits.

    With a size `below`, of what refines it; None where the two are not nested.
    """
    bottleneck, medium = codec.bottleneck, codec.config.medium
    found = layout(bottleneck, size) if below is None else refined_layout(bottleneck, size, below)
    if found is None:
        return None
    offsets = np.array((REFINED_OFFSETS if found.given else OFFSETS)[medium])
    net = PriorNet(found, len(offsets) + len(SPEEDS), LARGE[medium])
    return rounded(net, found, offsets, codec.stride if codec.axes == 2 else 0)


def export(folder: Path, name: str, codec: Codec) -> Path:
    """Writes a model as train.export does; returns its card's path."""
    medium, bottleneck = codec.config.medium, codec.bottleneck
    tensors = {
        key: (value if key.startswith("bottleneck.") else value.half()).contiguous().numpy()
        for key, value in codec.state_dict().items()
    }
    for size in bottleneck.codebook_sizes:
        counts = np.ones((1, bottleneck.num_codes(size)), np.int64)
        tensors[f"tables.{size}"] = quantise_counts(counts).astype(np.int32)
        below = bottleneck.codebook_sizes[bottleneck.codebook_sizes.index(size) - 1]
        for kind, prior in (
            (cards.PRIOR, untrained_prior(codec, size)),
            (cards.LAYER, untrained_prior(codec, size, below) if below < size else None),
        ):
            for part, table in prior.to_tensors().items() if prior else ():
                tensors[f"{kind}{size}.{part}"] = table
    config = json.loads(json.dumps(codec.config.to_dict()))
    card = {
        "name": name,
        **identities(config, tensors),
        "config": config,
        "num_codes": {str(k): bottleneck.num_codes(k) for k in bottleneck.codebook_sizes},
        "tokens_per_unit": 1 / 64 if medium == "image" else 16000 / 96,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(card))
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny "speech-fsp" and "image-fsp"; not to be written to."""
    folder = tmp_path_factory.mktemp("models")
    for medium in NETS:
        export(folder, f"{medium}-fsp", tiny_codec(medium))
    return folder


@pytest.fixture
def models(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the tiny models in the place of the shipped ones."""
    monkeypatch.setattr(cards, "MODELS_FOLDER", model_folder)
    return model_folder


@pytest.fixture(scope="session")
def speech_model(model_folder: Path) -> coding.Model:
    return coding.load(cards.read_card(model_folder / "speech-fsp.json"))


@pytest.fixture(scope="session")
def image_model(model_folder: Path) -> coding.Model:
    return coding.load(cards.read_card(model_folder / "image-fsp.json"))


def no_temporary_folder() -> str:
    """What `tempfile.gettempdir` does where none of its folders can be written."""
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


def tones(length: int, rate: int = 16000, channels: int = 1) -> NDArray[np.float32]:
    """(T, C) float32: a few partials and some noise, another pitch in every channel."""
    time = np.arange(length)[:, None] / rate
    pitch = 150 * (1 + np.arange(channels))[None]
    sound = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in (1, 2, 5)) * np.sin(
        2 * np.pi * 3 * time
    )
    noise = np.random.default_rng(0).standard_normal((length, channels))
    return np.asarray(0.2 * sound + 0.02 * noise, np.float32)


def wav(
    samples: NDArray[np.float32],
    rate: int = 16000,
    kind: str = "WAV",
    subtype: str | None = "PCM_16",
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=kind)
    return file.getvalue()


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) with detail."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return np.clip(np.stack([rows, columns, rows + columns], -1) % 216 + noise, 0, 255).astype(
        np.uint8
    )


def picture(image: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind, **options
    )
    return file.getvalue()


@pytest.fixture
def media_folder(tmp_path: Path) -> Path:
    """A folder with two recordings and two pictures, none of which is as large as another."""
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.wav").write_bytes(wav(tones(16000 + number)))
        (folder / f"{number}.png").write_bytes(picture(gradient(64 + number, 80)))
    return folder


def spoilt(data: bytes) -> list[bytes]:
    """Every cut of some bytes, a few bytes more, and every flipped bit."""
    cut = [data[:length] for length in range(len(data))]
    longer = [data + b"\0", data + b"\1", data + bytes(9)]
    flipped = [
        data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]
        for i in range(len(data))
        for bit in range(8)
    ]
    return cut + longer + flipped
